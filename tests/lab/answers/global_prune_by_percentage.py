# ruff: noqa
# Answers to notebook 04's global_prune_by_percentage. Each runs in the notebook's own namespace.

# === right: the report's style, numpy and float masks, named_modules twice
def global_prune_by_percentage(net, q=70.0):
    flat = []
    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and "id_mapping" not in name:
            flat.append(np.abs(layer.weight.data.cpu().numpy()).flatten())
    threshold = np.percentile(np.concatenate(flat), q)
    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and "id_mapping" not in name:
            mask = np.abs(layer.weight.data.cpu().numpy()) >= threshold
            layer.weight.data.mul_(torch.tensor(mask, dtype=torch.float32, device=layer.weight.device))

# === right: torch.cat, torch.quantile, masked_fill_
@torch.no_grad()
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    threshold = torch.quantile(torch.cat([layer.weight.flatten() for layer in layers]).abs(), q / 100)
    for layer in layers:
        layer.weight.masked_fill_(layer.weight.abs() < threshold, 0)

# === right: sorted by hand with interpolation
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    a = torch.cat([layer.weight.detach().abs().double().reshape(-1) for layer in layers]).sort().values
    p = q / 100 * (len(a) - 1)
    low = math.floor(p)
    high = min(low + 1, len(a) - 1)
    t = a[low] + (p - low) * (a[high] - a[low])
    for layer in layers:
        layer.weight.data[layer.weight.data.abs().double() < t] = 0

# === right: a Mask of labkit's, and it returns it
def global_prune_by_percentage(net, q=70.0):
    magnitudes = {name: layer.weight.detach().abs() for name, layer in labkit.prunable_layers(net)}
    t = float(np.percentile(torch.cat([m.flatten() for m in magnitudes.values()]).cpu().numpy(), q))
    mask = labkit.Mask({name: (m >= t).float() for name, m in magnitudes.items()})
    mask.apply(net)
    return mask

# === right: new storage behind the same Parameters, printing and warning
def global_prune_by_percentage(net, q=70.0):
    import warnings
    warnings.warn("pruning everything")
    weights = [layer.weight for name, layer in labkit.prunable_layers(net)]
    vector = nn.utils.parameters_to_vector(weights).detach().abs().numpy()
    t = np.percentile(vector, q, method="linear")
    for weight in weights:
        w = weight.detach().clone()
        w[w.abs() < t] *= 0  # leaves -0.0 here and there
        weight.data = w
    print(f"threshold {t}, {sum(int((w == 0).sum()) for w in weights)} zeros")

# === right: written through numpy's view of the weights
def global_prune_by_percentage(net, q=70.0):
    views = [layer.weight.detach().numpy() for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.hstack([np.abs(v).ravel() for v in views]), q)
    for v in views:
        v[np.abs(v) < t] = 0

# === right: one long vector, pruned, and cut up again
def global_prune_by_percentage(net, q=70.0):
    weights = [layer.weight for _, layer in labkit.prunable_layers(net)]
    vector = torch.cat([w.detach().flatten() for w in weights])
    kept = torch.where(vector.abs() >= np.percentile(vector.abs().numpy(), q), vector, torch.zeros_like(vector))
    with torch.no_grad():
        for w, part in zip(weights, kept.split([w.numel() for w in weights])):
            w.copy_(part.view_as(w))

# === right: recursion over the children, threshold computed anew in each layer
def global_prune_by_percentage(net, q=70.0):
    def find(module, path):
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "id_mapping" not in path:
            yield module
        for name, child in module.named_children():
            yield from find(child, path + "." + name)

    for layer in find(net, ""):
        t = np.percentile(np.concatenate([l.weight.detach().abs().numpy().ravel() for l in find(net, "")]), q)
        layer.weight.data *= (layer.weight.data.abs() >= t)

# === right: a Python list of a quarter of a million numbers
def global_prune_by_percentage(net, q=70.0):
    sizes = []
    for _, layer in labkit.prunable_layers(net):
        sizes += layer.weight.detach().abs().flatten().tolist()
    t = np.percentile(sizes, q)
    for _, layer in labkit.prunable_layers(net):
        mask = (layer.weight.detach().abs() >= t).type_as(layer.weight)
        layer.weight.data = layer.weight.data * mask

# === wrong: a threshold for each layer, called global
# hint: each layer has a threshold of its own
def global_prune_by_percentage(net, q=70.0):
    for _, layer in labkit.prunable_layers(net):
        weight = layer.weight.data
        weight.mul_(weight.abs() >= np.percentile(weight.abs().numpy(), q))

# === wrong: the mean of the layers' thresholds
# hint: the mean of the layers' thresholds
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.mean([np.percentile(layer.weight.detach().abs().numpy(), q) for layer in layers])
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: the mean of the layers' thresholds, weighted by size
# hint: the mean of the layers' thresholds
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    each = [np.percentile(layer.weight.detach().abs().numpy(), q) for layer in layers]
    t = np.average(each, weights=[layer.weight.numel() for layer in layers])
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: shortcuts counted in the threshold, not pruned
# hint: shortcuts (id_mapping)
def global_prune_by_percentage(net, q=70.0):
    every = [m.weight.detach().abs().numpy().ravel() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    t = np.percentile(np.concatenate(every), q)
    for _, layer in labkit.prunable_layers(net):
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: shortcuts pruned, not counted
# hint: shortcuts (id_mapping)
def global_prune_by_percentage(net, q=70.0):
    every = [layer.weight.detach().abs().numpy().ravel() for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate(every), q)
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: shortcuts counted and pruned
# hint: shortcuts (id_mapping)
def global_prune_by_percentage(net, q=70.0):
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    t = np.percentile(np.concatenate([m.weight.detach().abs().numpy().ravel() for m in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: batch norms and biases in the percentile
# hint: biases and batch norms
def global_prune_by_percentage(net, q=70.0):
    every = [p.detach().abs().numpy().ravel() for name, p in net.named_parameters() if "id_mapping" not in name]
    t = np.percentile(np.concatenate(every), q)
    for _, layer in labkit.prunable_layers(net):
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: batch norms and biases are pruned as well
# hint: biases and batch norms
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for name, p in net.named_parameters():
        if "id_mapping" not in name:
            p.data.mul_(p.data.abs() >= t)

# === wrong: every module that has a weight
# hint: biases and batch norms
def global_prune_by_percentage(net, q=70.0):
    layers = [m for name, m in net.named_modules() if hasattr(m, "weight") and "id_mapping" not in name]
    t = np.percentile(np.concatenate([m.weight.detach().abs().numpy().ravel() for m in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: the biases are counted
# hint: biases and batch norms
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    every = [p.detach().abs().numpy().ravel() for layer in layers for p in layer.parameters()]
    t = np.percentile(np.concatenate(every), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: percentile over signed values
# hint: the percentile is taken of w itself
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: signed values on both sides
# hint: compare |w| with it
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data >= t)

# === wrong: q taken as a fraction
# hint: not divided by 100
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q / 100)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: the default is a fraction
# hint: none
def global_prune_by_percentage(net, q=0.7):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: q is ignored
# hint: 70 percent went, whatever q says
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), 70.0)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: only convolutions
# hint: linear layers belong to it too
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net) if isinstance(layer, nn.Conv2d)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: the classifier is counted but not pruned
# hint: the last layer has to be pruned too
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers[:-1]:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: exact types, no subclasses
# hint: a subclass of nn.Linear is a linear layer
def global_prune_by_percentage(net, q=70.0):
    layers = [m for name, m in net.named_modules() if type(m) in (nn.Conv2d, nn.Linear) and "id_mapping" not in name]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: only names that the report's network has
# hint: by their type, not by a name
def global_prune_by_percentage(net, q=70.0):
    layers = [m for name, m in net.named_modules() if name.endswith((".conv", ".linear")) and "id_mapping" not in name]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: magnitudes divided by each layer's largest
# hint: something of each layer's own
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    relative = [layer.weight.detach().abs() / layer.weight.detach().abs().max() for layer in layers]
    t = np.percentile(torch.cat([r.flatten() for r in relative]).numpy(), q)
    for layer, r in zip(layers, relative):
        layer.weight.data.mul_(r >= t)

# === wrong: magnitudes divided by each layer's standard deviation
# hint: something of each layer's own
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    relative = [layer.weight.detach().abs() / layer.weight.detach().std() for layer in layers]
    t = np.percentile(torch.cat([r.flatten() for r in relative]).numpy(), q)
    for layer, r in zip(layers, relative):
        layer.weight.data.mul_(r >= t)

# === wrong: squared weights against the percentile of magnitudes
# hint: w squared
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data**2 >= t)

# === wrong: weights at the threshold go too
# hint: a weight equal to the threshold stays
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() > t)

# === wrong: the largest weights go
# hint: the largest weights went
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() <= t)

# === wrong: a share of the largest magnitude instead of a percentile
# hint: is not a percentile
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = q / 100 * max(layer.weight.detach().abs().max().item() for layer in layers)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: new Parameters take the old ones' place
# hint: an optimizer holds on to the old Parameter
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.data * (layer.weight.data.abs() >= t))

# === wrong: a pruned copy is returned, the net stays
# hint: nothing changed
def global_prune_by_percentage(net, q=70.0):
    import copy
    net = copy.deepcopy(net)
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)
    return net

# === wrong: the product is never written back
# hint: nothing changed
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        weight = layer.weight.data
        weight = weight * (weight.abs() >= t)

# === wrong: the first layer's threshold for all
# hint: the first layer's threshold
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(layers[0].weight.detach().abs().numpy(), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: the last layer's threshold for all, the list overwritten in the loop
# hint: the last layer's threshold
def global_prune_by_percentage(net, q=70.0):
    for _, layer in labkit.prunable_layers(net):
        magnitudes = layer.weight.detach().abs().numpy().ravel()
    t = np.percentile(magnitudes, q)
    for _, layer in labkit.prunable_layers(net):
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: collected and pruned in one loop
# hint: prunes while it still collects
def global_prune_by_percentage(net, q=70.0):
    flat = []
    for _, layer in labkit.prunable_layers(net):
        flat.append(layer.weight.detach().abs().numpy().ravel())
        layer.weight.data.mul_(layer.weight.data.abs() >= np.percentile(np.concatenate(flat), q))

# === wrong: a sample of the weights, every tenth
# hint: none
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel()[::10] for layer in layers]), q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: only the weights that are left are counted
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    every = np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers])
    t = np.percentile(every[every > 0], q)
    for layer in layers:
        layer.weight.data.mul_(layer.weight.data.abs() >= t)

# === wrong: no layer may be emptied
# hint: a layer may lose every weight
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        weight = layer.weight.data
        if (weight.abs() >= t).any():
            weight.mul_(weight.abs() >= t)

# === wrong: signs lost
# hint: the signs are lost
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        magnitude = layer.weight.data.abs()
        layer.weight.data.copy_(magnitude * (magnitude >= t))

# === wrong: the mask itself is written
# hint: the mask itself
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data.copy_((layer.weight.data.abs() >= t).float())

# === wrong: a float32 network whatever it was
# hint: keeps its dtype
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data = (layer.weight.data * (layer.weight.data.abs() >= t)).float()

# === wrong: masks are kept as buffers
# hint: none
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.register_buffer("mask", (layer.weight.detach().abs() >= t).float())
        layer.weight.data.mul_(layer.mask)

# === wrong: weights are made small, not zero
# hint: made small, not zero
def global_prune_by_percentage(net, q=70.0):
    layers = [layer for _, layer in labkit.prunable_layers(net)]
    t = np.percentile(np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in layers]), q)
    for layer in layers:
        layer.weight.data[layer.weight.data.abs() < t] = 1e-8
