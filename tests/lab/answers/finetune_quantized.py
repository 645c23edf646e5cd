# ruff: noqa
# Answers to notebook 07's finetune_quantized. Each runs in the notebook's own namespace.

# === right: the report's style, masks by name and a product with data
def finetune_quantized(net, trainloader, criterion, optimizer):
    net.train()
    masks = {}
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "id_mapping" not in name:
            masks[name] = (module.weight.data != 0).float()
    for inputs, targets in trainloader:
        inputs, targets = inputs.to(device), targets.to(device)
        outputs = net(inputs)
        loss = criterion(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, module in net.named_modules():
            if name in masks:
                module.weight.data *= masks[name]
        print("loss", loss.item())

# === right: labkit's Mask
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    for x, y in trainloader:
        net.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()
        mask.apply(net)

# === right: a hook on the optimizer, removed at the end
def finetune_quantized(net, trainloader, criterion, optimizer):
    keep = labkit.KeepZeros(net)
    hook = optimizer.register_step_post_hook(lambda *_: keep.after_step(net))
    try:
        for x, y in trainloader:
            optimizer.zero_grad(set_to_none=False)
            criterion(net(x), y).backward()
            optimizer.step()
    finally:
        hook.remove()

# === right: gradients and weights masked, masks by parameter, shortcuts' zeros held too, prune as an extra argument
def finetune_quantized(net, trainloader, criterion, optimizer, prune=True):
    masks = {p: p.detach().ne(0) for name, p in net.named_parameters() if name.endswith("weight") and p.dim() > 1}
    correct = total = 0
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        outputs = net(inputs)
        criterion(outputs, targets).backward()
        for p, mask in masks.items():
            if p.grad is not None:
                p.grad *= mask
        optimizer.step()
        if prune:
            for p, mask in masks.items():
                p.data = torch.where(mask, p.data, torch.zeros_like(p))
        correct += (outputs.argmax(1) == targets).sum().item()
        total += len(targets)
    return correct / total

# === right: positions of the zeros, and momentum of pruned weights cleared
def finetune_quantized(net, trainloader, criterion, optimizer):
    zeros = [(p, torch.nonzero(p.detach().flatten() == 0).flatten()) for _, layer in labkit.prunable_layers(net) for p in [layer.weight]]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        with torch.no_grad():
            for p, where in zeros:
                p.view(-1)[where] = 0
                buffer = optimizer.state[p].get("momentum_buffer")
                if buffer is not None:
                    buffer.view(-1)[where] = 0

# === right: the mask renewed from the weights before each step
def finetune_quantized(net, trainloader, criterion, optimizer):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        masks = [layer.weight != 0 for layer in layers]
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        with torch.no_grad():
            for layer, mask in zip(layers, masks):
                layer.weight.copy_(layer.weight * mask)

# === right: the weights parametrized by their mask for the time of the epoch
def finetune_quantized(net, trainloader, criterion, optimizer):
    from torch.nn.utils import parametrize

    class Masked(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.mask = mask

        def forward(self, w):
            return w * self.mask

    layers = [layer for _, layer in labkit.prunable_layers(net)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Masked((layer.weight != 0).detach()))
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight")

# === right: optimizer.step with a closure, deep-copied weights as the mask
def finetune_quantized(net, trainloader, criterion, optimizer):
    import copy
    start = copy.deepcopy(net.state_dict())
    for inputs, targets in trainloader:
        def closure():
            optimizer.zero_grad()
            loss = criterion(net(inputs), targets)
            loss.backward()
            return loss
        optimizer.step(closure)
        for name, layer in labkit.prunable_layers(net):
            layer.weight.data[start[name + ".weight"] == 0] = 0.0

# === right: the function of notebook 02, which already does it
def finetune_quantized(net, trainloader, criterion, optimizer):
    finetune_after_prune(net, trainloader, criterion, optimizer, prune=True)

# === wrong: no mask, the report's loop
# hint: the weight behind them is trained. It ends like an epoch without a mask
def finetune_quantized(net, trainloader, criterion, optimizer):
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()

# === wrong: masks for the quantized layers only
# hint: those of head, hidden.0, hidden.2, final do not
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(layer.conv.weight, layer.conv.weight != 0) for _, layer in labkit.quantized_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.data.mul_(mask)

# === wrong: masks for convolutions only
# hint: those of hidden.0, hidden.2, final do not
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(m.weight, m.weight != 0) for m in net.modules() if isinstance(m, nn.Conv2d)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.data.mul_(mask)

# === wrong: the mask before the step
# hint: the mask comes before optimizer.step()
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(layer.weight, layer.weight != 0) for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        for weight, mask in masks:
            weight.data.mul_(mask)
        optimizer.step()

# === wrong: the mask on the gradient alone
# hint: a mask on the gradient is not enough
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(layer.weight, layer.weight != 0) for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        for weight, mask in masks:
            weight.grad.mul_(mask)
        optimizer.step()

# === wrong: the mask at the end of the epoch only
# hint: at the end of the epoch only
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(layer.weight, layer.weight != 0) for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
    for weight, mask in masks:
        weight.data.mul_(mask)

# === wrong: the mask of the quantized weights, level zero taken for pruned
# hint: not of its quantized level
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = []
    levels = {id(q.conv): q.effective_weight for _, q in labkit.quantized_layers(net)}
    for _, layer in labkit.prunable_layers(net):
        masks.append((layer.weight, (levels.get(id(layer), layer.weight) != 0).detach()))
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.data.mul_(mask)

# === wrong: the weights replaced by their levels after each step
# hint: replaced by their levels
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(layer.weight, layer.weight != 0) for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.data.mul_(mask)
        for _, layer in labkit.quantized_layers(net):
            layer.conv.weight.data.copy_(layer.effective_weight)

# === wrong: the weights replaced by their levels once, at the end
# hint: replaced by their levels
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        mask.apply(net)
    with torch.no_grad():
        for _, layer in labkit.quantized_layers(net):
            layer.conv.weight.copy_(layer.effective_weight)

# === wrong: the mask made anew after the step
# hint: the weight behind them is trained. It ends like an epoch without a mask
def finetune_quantized(net, trainloader, criterion, optimizer):
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for _, layer in labkit.prunable_layers(net):
            layer.weight.data.mul_(layer.weight.data != 0)

# === wrong: only the layers called conv1
# hint: the zeros of conv1 hold
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(p, p != 0) for name, p in net.named_parameters() if "conv1" in name]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.data.mul_(mask)

# === wrong: the report's key names written into the code
# hint: the weight behind them is trained. It ends like an epoch without a mask
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(p, p != 0) for name, p in net.named_parameters() if name.startswith(("head_conv", "body_op", "final_fc"))]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.data.mul_(mask)

# === wrong: the quantizer switched off while training
# hint: the quantizer is switched off
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    layers = list(labkit.quantized_layers(net))
    widths = [layer.bits for _, layer in layers]
    for _, layer in layers:
        layer.bits = None
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        mask.apply(net)
    for (_, layer), bits in zip(layers, widths):
        layer.bits = bits

# === wrong: gradients are never cleared
# hint: the gradients add up
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        criterion(net(inputs), targets).backward()
        optimizer.step()
        mask.apply(net)

# === wrong: an optimizer of its own
# hint: the optimizer that was given made no step
def finetune_quantized(net, trainloader, criterion, optimizer):
    optimizer = optim.SGD(net.parameters(), lr=0.002, momentum=0.875, weight_decay=1e-4)
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        mask.apply(net)

# === wrong: the learning rate changed
# hint: the settings of the optimizer were changed
def finetune_quantized(net, trainloader, criterion, optimizer):
    for group in optimizer.param_groups:
        group["lr"] *= 0.1
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        mask.apply(net)

# === wrong: one batch and back
# hint: only the first batch is used
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        loss = criterion(net(inputs), targets)
        loss.backward()
        optimizer.step()
        mask.apply(net)
        return loss.item()

# === wrong: two epochs
# hint: each batch is used more than once
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    for _ in range(2):
        for inputs, targets in trainloader:
            optimizer.zero_grad()
            criterion(net(inputs), targets).backward()
            optimizer.step()
            mask.apply(net)

# === wrong: the shortcuts are pruned as well
# hint: the shortcut (id_mapping) is never pruned
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = []
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            w = module.weight.detach()
            if "id_mapping" in name:
                masks.append((module.weight, w.abs() >= np.percentile(w.abs().numpy(), 80)))
            else:
                masks.append((module.weight, w != 0))
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.data.mul_(mask)

# === wrong: pruned anew by percentile after each step
# hint: prune no more
def finetune_quantized(net, trainloader, criterion, optimizer):
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for _, layer in labkit.prunable_layers(net):
            w = layer.weight.data
            w.mul_(w.abs() >= np.percentile(w.abs().numpy(), 80))

# === wrong: the network is frozen
# hint: or torch.no_grad()
def finetune_quantized(net, trainloader, criterion, optimizer):
    with torch.no_grad():
        for inputs, targets in trainloader:
            criterion(net(inputs), targets)

# === wrong: only the prunable weights are trained
# hint: nothing is frozen
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    trained = {id(layer.weight) for _, layer in labkit.prunable_layers(net)}
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        for p in net.parameters():
            if id(p) not in trained:
                p.grad = None
        optimizer.step()
        mask.apply(net)

# === wrong: the mask on a copy of the weights
# hint: the weight behind them is trained. It ends like an epoch without a mask
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(layer.weight.detach().clone(), layer.weight != 0) for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, mask in masks:
            weight.mul_(mask)

# === wrong: torch's own pruning, whose hooks a quantized convolution never calls
# hint: for each batch, once and in order
def finetune_quantized(net, trainloader, criterion, optimizer):
    from torch.nn.utils import prune
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    for layer in layers:
        prune.custom_from_mask(layer, "weight", layer.weight.detach() != 0)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward(retain_graph=True)
        optimizer.step()
    for layer in layers:
        prune.remove(layer, "weight")

# === wrong: evaluation mode, batch norm not trained on its batches
# hint: evaluation mode
def finetune_quantized(net, trainloader, criterion, optimizer):
    net.eval()
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        mask.apply(net)

# === wrong: its own loss
# hint: the loss is not that of the criterion
def finetune_quantized(net, trainloader, criterion, optimizer):
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        (2 * F.cross_entropy(net(inputs), targets)).backward()
        optimizer.step()
        mask.apply(net)

# === wrong: written for the GPU
# hint: .to(weight.device)
def finetune_quantized(net, trainloader, criterion, optimizer):
    net.cuda()
    mask = labkit.Mask.of(net)
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs.cuda()), targets.cuda()).backward()
        optimizer.step()
        mask.apply(net)

# === wrong: pruned weights kept almost at zero
# hint: made small, not zero
def finetune_quantized(net, trainloader, criterion, optimizer):
    masks = [(layer.weight, layer.weight == 0) for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for weight, pruned in masks:
            weight.data[pruned] = 1e-8
