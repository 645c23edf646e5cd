# ruff: noqa
# Answers to notebook 02's finetune_after_prune. Each runs in the notebook's own namespace.

# === right: the report's style, a dict of float masks by name
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    weight_mask = {}
    for name, layer in net.named_modules():
        if (isinstance(layer, nn.Conv2d) or isinstance(layer, nn.Linear)) and 'id_mapping' not in name:
            weight_mask[name] = (layer.weight.data != 0).float().to(layer.weight.device)
    for batch_idx, (inputs, targets) in enumerate(trainloader):
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        if prune:
            for name, layer in net.named_modules():
                if name in weight_mask:
                    layer.weight.data.mul_(weight_mask[name])
        _, predicted = outputs.max(1)
        print(f"[Step={batch_idx}] Loss={loss.item():.4f} acc={predicted.eq(targets).float().mean():.4f}")

# === right: masked_fill_ by layer, the momentum masked as well, train mode set
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    net.train()
    pruned = {layer: layer.weight == 0 for _, layer in labkit.prunable_layers(net)}
    for x, y in trainloader:
        net.zero_grad(set_to_none=False)
        criterion(net(x), y).backward()
        optimizer.step()
        if not prune:
            continue
        with torch.no_grad():
            for layer, zero in pruned.items():
                layer.weight.masked_fill_(zero, 0)
                momentum = optimizer.state[layer.weight].get("momentum_buffer")
                if momentum is not None:
                    momentum.masked_fill_(zero, 0)

# === right: labkit.Mask
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        loss = criterion(net(inputs), targets)
        loss.backward()
        optimizer.step()
        if prune:
            mask.apply(net)
    return loss.item()

# === right: zeroed before each forward pass and once more at the end
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    zeros = [(m, (m.weight == 0).nonzero(as_tuple=True)) for n, m in net.named_modules()
             if isinstance(m, (nn.Conv2d, nn.Linear)) and "id_mapping" not in n]
    def hold():
        if prune:
            for m, where in zeros:
                m.weight.data[where] = 0.0
    for batch in trainloader:
        hold()
        optimizer.zero_grad()
        criterion(net(batch[0]), batch[1]).backward()
        optimizer.step()
    hold()

# === right: a step hook on the optimizer, removed at the end
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {name: layer.weight.detach().ne(0) for name, layer in labkit.prunable_layers(net)}
    layers = dict(labkit.prunable_layers(net))
    def hook(*_):
        for name in masks:
            layers[name].weight.data *= masks[name]
    handle = optimizer.register_step_post_hook(hook) if prune else None
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    if handle:
        handle.remove()

# === right: every parameter masked, gradient and weight, mask renewed before each step
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    for inputs, targets in trainloader:
        masks = [(p, (p != 0).to(p.dtype)) for p in net.parameters()]
        loss = criterion(net(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for p, m in masks:
            if prune:
                p.grad.mul_(m)
        optimizer.step()
        for p, m in masks:
            if prune:
                p.data.mul_(m)

# === right: torch's own pruning, which puts a layer's names in another order
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    from torch.nn.utils import prune as pruning
    layers = [layer for _, layer in labkit.prunable_layers(net)] if prune else []
    for layer in layers:
        pruning.custom_from_mask(layer, "weight", (layer.weight.detach() != 0).float())
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    for layer in layers:
        pruning.remove(layer, "weight")

# === right: while loop with next, parameters by name, set to eval on return
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    keep = [name + ".weight" for name, _ in labkit.prunable_layers(net)]
    start = {name: p.detach().clone() for name, p in net.named_parameters() if name in keep}
    iterator = iter(trainloader)
    while True:
        try:
            inputs, targets = next(iterator)
        except StopIteration:
            break
        optimizer.zero_grad()
        with torch.enable_grad():
            criterion(net(inputs.to(next(net.parameters()).device)), targets).backward()
        optimizer.step()
        if prune is True:
            for name, p in net.named_parameters():
                if name in start:
                    p.data.copy_(torch.where(start[name] == 0, torch.zeros_like(p), p))
    net.eval()

# === wrong: mask before the step
# hint: the mask comes before optimizer.step()
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)
        optimizer.step()

# === wrong: mask on the gradient only
# hint: a mask on the gradient is not enough
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        if prune:
            for layer, mask in masks.items():
                layer.weight.grad.mul_(mask)
        optimizer.step()

# === wrong: mask by a gradient hook
# hint: a mask on the gradient is not enough
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    handles = []
    if prune:
        for _, layer in labkit.prunable_layers(net):
            mask = (layer.weight.detach() != 0).float()
            handles.append(layer.weight.register_hook(lambda g, mask=mask: g * mask))
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    for handle in handles:
        handle.remove()

# === wrong: mask once, after the epoch
# hint: at the end of the epoch only
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    if prune:
        for layer, mask in masks.items():
            layer.weight.data.mul_(mask)

# === wrong: gradient masked in each step, weight once at the end
# hint: at the end of the epoch only
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        if prune:
            for layer, mask in masks.items():
                layer.weight.grad.mul_(mask)
        optimizer.step()
    if prune:
        for layer, mask in masks.items():
            layer.weight.data.mul_(mask)

# === wrong: the last layer's mask for every layer
# hint: the zeros of final hold, those of head
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    for _, layer in labkit.prunable_layers(net):
        mask = layer.weight.data != 0
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for _, layer in labkit.prunable_layers(net):
                if layer.weight.shape == mask.shape:
                    layer.weight.data.mul_(mask)

# === wrong: the mask is taken from the gradient
# hint: the mask is taken from the gradient
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for _, layer in labkit.prunable_layers(net):
                layer.weight.data.mul_(layer.weight.grad != 0)

# === wrong: the mask is made after the step, when nothing is zero any more
# hint: an epoch without a mask
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for _, layer in labkit.prunable_layers(net):
                layer.weight.data.mul_(layer.weight.data != 0)

# === wrong: the product is computed, not stored
# hint: an epoch without a mask
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data * mask

# === wrong: a copy of the weights is masked
# hint: an epoch without a mask
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.detach().clone().mul_(mask)

# === wrong: a new Parameter in each step
# hint: an optimizer holds on to the old Parameter
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight = nn.Parameter(layer.weight.data * mask)

# === wrong: the flag is ignored, always masked
# hint: look at the argument `prune`
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for layer, mask in masks.items():
            layer.weight.data.mul_(mask)

# === wrong: the flag is turned round
# hint: the wrong way round
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if not prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: an ordinary epoch, no mask at all
# hint: an epoch without a mask
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()

# === wrong: no training with prune=False
# hint: with prune=False it trains as well
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    if not prune:
        return
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for layer, mask in masks.items():
            layer.weight.data.mul_(mask)

# === wrong: gradients are never cleared
# hint: the gradients add up
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: gradients are cleared between backward and step
# hint: first zero_grad()
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        criterion(net(inputs), targets).backward()
        optimizer.zero_grad()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: one batch only
# hint: only the first batch is used
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)
        return

# === wrong: each batch twice
# hint: each batch is used more than once
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for epoch in range(2):
        for inputs, targets in trainloader:
            optimizer.zero_grad()
            criterion(net(inputs), targets).backward()
            optimizer.step()
            if prune:
                for layer, mask in masks.items():
                    layer.weight.data.mul_(mask)

# === wrong: one step for the whole epoch
# hint: one step for the whole epoch
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    optimizer.zero_grad()
    for inputs, targets in trainloader:
        (criterion(net(inputs), targets) / len(trainloader)).backward()
    optimizer.step()
    if prune:
        for layer, mask in masks.items():
            layer.weight.data.mul_(mask)

# === wrong: the loss is made from detached outputs
# hint: without detach()
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        loss = criterion(net(inputs).detach().requires_grad_(), targets)
        loss.backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: no step
# hint: no step was made
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: an optimizer of its own
# hint: the optimizer that was given made no step
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    optimizer = optim.SGD(net.parameters(), lr=0.002, momentum=0.875, weight_decay=1e-4)
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: an optimizer with the given one's defaults, its memory lost
# hint: the optimizer that was given made no step
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    optimizer = type(optimizer)(net.parameters(), **optimizer.defaults)
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: a criterion of its own
# hint: the loss is not that of the criterion
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: the momentum is thrown away
# hint: the optimizer has lost its memory
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.state.clear()
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: evaluation mode inside
# hint: evaluation mode
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    net.eval()
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: shortcuts masked by their magnitude
# hint: the shortcut (id_mapping) is never pruned
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    masks = {layer: layer.weight.data.abs() >= 0.01 for layer in layers}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: shortcuts pruned to 70 percent, as the other layers were
# hint: the shortcut (id_mapping) is never pruned
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    for name, layer in net.named_modules():
        if "id_mapping" in name and isinstance(layer, nn.Conv2d):
            prune_by_percentage(layer, q=70.0)
    masks = {m: m.weight.data != 0 for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: shortcuts are frozen
# hint: id_mapping.conv.weight did not move
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    frozen = {n: p.detach().clone() for n, p in net.named_parameters() if "id_mapping" in n}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for n, p in net.named_parameters():
            if n in frozen:
                p.data.copy_(frozen[n])
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: linear layers are forgotten
# hint: those of hidden.0, hidden.2, final do not
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {m: m.weight.data != 0 for n, m in net.named_modules() if isinstance(m, nn.Conv2d) and "id_mapping" not in n}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: prunes to 70 percent on entry
# hint: became zero that were not
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    if prune:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer)
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: prunes again after each step instead of holding a mask
# hint: prune no more
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    shares = {layer: 100 * labkit.sparsity(layer) for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, q in shares.items():
                prune_by_percentage(layer, q=q)

# === wrong: pruned layers are frozen as a whole
# hint: nothing is frozen
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    for _, layer in labkit.prunable_layers(net):
        layer.weight.requires_grad = not prune
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()

# === wrong: gradients are clipped
# hint: for each batch, once and in order
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: batches in another order
# hint: the batches come in another order
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in reversed(list(trainloader)):
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)

# === wrong: nothing is done
# hint: no batch went through net
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    pass

# === wrong: a deep copy is trained
# hint: not a copy
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    import copy
    net, optimizer = copy.deepcopy((net, optimizer))
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)
    return net

# === wrong: the first batch is left out
# hint: the first batch is left out
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = {layer: layer.weight.data != 0 for _, layer in labkit.prunable_layers(net)}
    for i, (inputs, targets) in enumerate(trainloader):
        if i == 0:
            continue
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        if prune:
            for layer, mask in masks.items():
                layer.weight.data.mul_(mask)
