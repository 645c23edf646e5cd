# ruff: noqa
# Answers to notebook 01's prune_by_percentage. Each runs in the notebook's own namespace.

# === right: the report's style, numpy and a float mask
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data.cpu().numpy()
    threshold = np.percentile(np.abs(weight), q)
    mask = np.abs(weight) >= threshold
    layer.weight.data.mul_(torch.tensor(mask, dtype=torch.float32, device=layer.weight.device))

# === right: torch.quantile and masked_fill_
def prune_by_percentage(layer, q=70.0):
    with torch.no_grad():
        magnitude = layer.weight.abs()
        threshold = torch.quantile(magnitude.flatten(), q / 100)
        layer.weight.masked_fill_(magnitude < threshold, 0.0)

# === right: sorted by hand with interpolation
def prune_by_percentage(layer, q=70.0):
    a, _ = layer.weight.detach().abs().flatten().double().sort()
    p = q / 100 * (len(a) - 1)
    low = math.floor(p)
    high = min(low + 1, len(a) - 1)
    t = a[low] + (p - low) * (a[high] - a[low])
    layer.weight.data[layer.weight.data.abs().double() < t] = 0

# === right: new storage behind the same Parameter, printing and warning
def prune_by_percentage(layer, q=70.0):
    import warnings
    warnings.warn("pruning")
    print("pruning", q)
    w = layer.weight.detach().clone()
    w[w.abs() < float(np.percentile(w.abs().numpy(), q))] *= 0
    layer.weight.data = w

# === right: copy_ of torch.where, returning the mask
def prune_by_percentage(layer, q=70.0):
    w = layer.weight
    t = np.percentile(np.abs(w.detach().numpy()), q, method="linear")
    with torch.no_grad():
        w.copy_(torch.where(w.abs() >= t, w, torch.zeros_like(w)))
    return w != 0

# === wrong: percentile over signed values
# hint: the percentile is taken of w itself
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    threshold = np.percentile(weight.numpy(), q)
    weight.mul_(weight.abs() >= threshold)

# === wrong: signed values on both sides
# hint: compare |w| with it
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight.mul_(weight >= np.percentile(weight.numpy(), q))

# === wrong: q taken as a fraction
# hint: not divided by 100
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight.mul_(weight.abs() >= np.percentile(weight.abs().numpy(), q / 100))

# === wrong: the largest weights go
# hint: the largest weights went
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight.mul_(weight.abs() <= np.percentile(weight.abs().numpy(), q))

# === wrong: weights at the threshold go too
# hint: a weight equal to the threshold stays
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight.mul_(weight.abs() > np.percentile(weight.abs().numpy(), q))

# === wrong: the percentile of the range, not of the weights
# hint: is not a percentile
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight.mul_(weight.abs() >= q / 100 * weight.abs().max())

# === wrong: one threshold for each output channel
# hint: each row has a threshold of its own
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    for row in weight:
        row.mul_(row.abs() >= np.percentile(row.abs().numpy(), q))

# === wrong: a new Parameter takes the old one's place
# hint: an optimizer holds on to the old Parameter
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    mask = weight.abs() >= np.percentile(weight.abs().numpy(), q)
    layer.weight = nn.Parameter(weight * mask)

# === wrong: a pruned copy is returned, the layer stays
# hint: nothing changed
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data.clone()
    return weight * (weight.abs() >= np.percentile(weight.abs().numpy(), q))

# === wrong: signs lost
# hint: the signs are lost
def prune_by_percentage(layer, q=70.0):
    magnitude = layer.weight.data.abs()
    layer.weight.data.copy_(magnitude * (magnitude >= np.percentile(magnitude.numpy(), q)))

# === wrong: q is ignored
# hint: 70 percent went, whatever q says
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight.mul_(weight.abs() >= np.percentile(weight.abs().numpy(), 70.0))

# === wrong: the lower neighbour instead of interpolation
# hint: the percentile is interpolated
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight.mul_(weight.abs() >= np.percentile(weight.abs().numpy(), q, method="lower"))

# === wrong: the bias is pruned as well
# hint: only layer.weight may change
def prune_by_percentage(layer, q=70.0):
    for parameter in layer.parameters():
        w = parameter.data
        w.mul_(w.abs() >= np.percentile(w.abs().numpy(), q))
        if parameter is not layer.weight:
            w.zero_()

# === wrong: half precision
# hint: keeps its dtype
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    mask = weight.abs() >= np.percentile(weight.abs().numpy(), q)
    layer.weight.data = (weight * mask).half()

# === wrong: weights are made small, not zero
# hint: made small, not zero
def prune_by_percentage(layer, q=70.0):
    weight = layer.weight.data
    weight[weight.abs() < np.percentile(weight.abs().numpy(), q)] = 1e-8
