# ruff: noqa
# Answers to notebook 03's iterative_prune. Each runs in the notebook's own namespace, where prune_by_percentage
# comes from notebook 01; each brings its own sparsity_at, or does without.

# === right: with sparsity_at and prune_by_percentage
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * min(epoch + 1, ramp_epochs) / ramp_epochs

def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for name, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=sparsity_at(epoch, target, ramp_epochs))

# === right: the report's style, the formula written again
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        q = target / ramp_epochs * (epoch + 1)
        print(f"Pruning {q:.1f}% of weights before Epoch {epoch}")
        for name, layer in net.named_modules():
            if (isinstance(layer, nn.Conv2d) or isinstance(layer, nn.Linear)) and 'id_mapping' not in name:
                prune_by_percentage(layer, q=q)

# === right: torch.quantile, nothing taken from elsewhere, the mask returned
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    masks = {}
    if epoch >= ramp_epochs:
        return masks
    share = target * (epoch + 1) / ramp_epochs / 100
    for name, layer in labkit.prunable_layers(net):
        magnitude = layer.weight.detach().abs()
        masks[name] = magnitude >= torch.quantile(magnitude.flatten(), share)
        layer.weight.data *= masks[name]
    return masks

# === right: prunes to the target again after the ramp, which changes nothing there
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return min(target, target / ramp_epochs * (epoch + 1))

def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    q = sparsity_at(epoch, target=target, ramp_epochs=ramp_epochs)
    for _, layer in labkit.prunable_layers(net):
        prune_by_percentage(layer, q)

# === right: the schedule as a tensor, written by index
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return torch.tensor(target * min(epoch + 1, ramp_epochs) / ramp_epochs)

@torch.no_grad()
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch not in range(ramp_epochs):
        return net
    for _, layer in labkit.prunable_layers(net):
        w = layer.weight
        w[w.abs() < float(np.percentile(w.abs().numpy(), sparsity_at(epoch, target, ramp_epochs).item()))] = 0
    return net

# === right: a wrong sparsity_at, which is judged by its own tests
# hint: none
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * (epoch + 1.5) / (ramp_epochs + 1)

# --- the answer
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=sparsity_at(epoch, target, ramp_epochs))

# === right: no sparsity_at yet, the formula is here
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    raise NotImplementedError("write your answer here")

def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)

# === wrong: the target and the ramp are not passed on
# hint: pass them on
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * min(epoch + 1, ramp_epochs) / ramp_epochs

def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=sparsity_at(epoch))

# === wrong: the ramp's length is not passed on
# hint: pass ramp_epochs on
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return target * min(epoch + 1, ramp_epochs) / ramp_epochs

def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=sparsity_at(epoch, target))

# === wrong: 8 percent a step in epochs 0 to 9, whatever the arguments
# hint: the ramp of the defaults
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < 10:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=8 * (epoch + 1))

# === wrong: to the target at once
# hint: the target at once
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target)

# === wrong: the default q instead of the schedule's
# hint: the default q
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer)

# === wrong: a fraction for q
# hint: not divided by 100
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs / 100)

# === wrong: counts from epoch 1
# hint: the percentage of the epoch before
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * epoch / ramp_epochs)

# === wrong: the last step is left out
# hint: the last step is left out
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs - 1:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)

# === wrong: prunes beyond the target after the ramp
# hint: only if epoch < ramp_epochs
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    for _, layer in labkit.prunable_layers(net):
        prune_by_percentage(layer, q=min(100.0, target * (epoch + 1) / ramp_epochs))

# === wrong: shortcuts are pruned as well
# hint: the shortcut (id_mapping) stays dense
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)

# === wrong: convolutions only
# hint: linear layers and convolutions are both pruned
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            if isinstance(layer, nn.Conv2d):
                prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)

# === wrong: the return stands inside the loop
# hint: `return` stand inside the loop
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)
            return

# === wrong: one threshold for the whole network
# hint: one threshold for the whole network
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        layers = [layer for _, layer in labkit.prunable_layers(net)]
        everything = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
        t = np.percentile(everything.numpy(), target * (epoch + 1) / ramp_epochs)
        for layer in layers:
            layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: the percentage counts the weights that are left
# hint: none
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            w = layer.weight.data
            left = w.abs()[w != 0].numpy()
            w.mul_(w.abs() >= np.percentile(left, target * (epoch + 1) / ramp_epochs))

# === wrong: each step takes its share of the target on top of the zeros that are there
# hint: the share of one step
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            q = min(target, 100 * labkit.sparsity(layer) + target / ramp_epochs)
            prune_by_percentage(layer, q=q)

# === wrong: a copy is pruned
# hint: a copy does not help
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    import copy
    net = copy.deepcopy(net)
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)
    return net

# === wrong: new Parameters
# hint: an optimizer holds on to the old Parameter
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)
            layer.weight = nn.Parameter(layer.weight.data)

# === wrong: remembers the first masks and never looks at the weights again
# hint: none
kept = {}
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for name, layer in labkit.prunable_layers(net):
            if (name, epoch) not in kept:
                a = layer.weight.detach().abs()
                kept[name, epoch] = a >= float(np.percentile(a.numpy(), target * (epoch + 1) / ramp_epochs))
            layer.weight.data.mul_(kept[name, epoch])

# === wrong: what was pruned once stays pruned
# hint: none
gone = {}
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for name, layer in labkit.prunable_layers(net):
            if id(layer) in gone:
                layer.weight.data[gone[id(layer)][1]] = 0
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)
            gone[id(layer)] = layer, layer.weight == 0

# === wrong: weights are drawn anew after the ramp
# hint: only if epoch < ramp_epochs
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    for _, layer in labkit.prunable_layers(net):
        if epoch < ramp_epochs:
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)
        else:
            nn.init.kaiming_normal_(layer.weight)

# === wrong: pruned layers are frozen
# hint: none
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)
            layer.weight.requires_grad_(False)

# === wrong: batch norms are pruned too
# hint: only layer.weight may change
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for name, layer in net.named_modules():
            if hasattr(layer, "weight") and "id_mapping" not in name:
                prune_by_percentage(layer, q=target * (epoch + 1) / ramp_epochs)
                if isinstance(layer, nn.BatchNorm2d):
                    layer.weight.data[0] = 0

# === wrong: nothing is done
# hint: nothing changed
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    pass
