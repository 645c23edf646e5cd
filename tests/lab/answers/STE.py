# ruff: noqa
# Answers to notebook 05's STE, the asymmetric grid. Each runs in the notebook's own namespace.

# === right: the report's style, a float mask first
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            wq = w
        elif bit == 0:
            wq = w * 0
        else:
            weight_mask = (w != 0).float()
            if symmetric == False:
                alpha = w.max() - w.min()
                beta = w.min()
                ws = (w - beta) / (alpha + 1e-8)
                step = 2 ** bit - 1
                R = torch.round(ws * step) / step
                wq = R * alpha + beta
            else:
                wq = w
            wq = wq * weight_mask
        return wq

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: torch.where for the zeros, range over the nonzero weights, printing and warning
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        import warnings
        warnings.warn("quantizing")
        print("quantizing to", bit)
        if bit is None:
            return w.clone()
        live = w[w != 0]
        if bit == 0 or live.numel() == 0:
            return torch.zeros_like(w)
        low, high = live.min(), live.max()
        n = 2**bit - 1
        q = low + (high - low) * (torch.round(n * (w - low) / (high - low + 1e-8)) / n)
        return torch.where(w == 0, torch.zeros_like(w), q)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output.clone(), None, None

# === right: integer codes with a scale and a floating-point zero point
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        ctx.bit = bit
        ctx.save_for_backward(w)
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        delta = (w.max() - w.min()).item() / (2**bit - 1) + 1e-12
        lowest = w.min().item()
        codes = torch.round((w - lowest) / delta).clamp(0, 2**bit - 1).to(torch.int64)
        result = lowest + delta * codes.to(w.dtype)
        result[w == 0] = 0
        return result

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: the nearest entry of a table of levels
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return 0 * w
        table = torch.linspace(w.min().item(), w.max().item(), 2**bit)
        nearest = (w.reshape(-1, 1) - table).abs().argmin(dim=1)
        return table[nearest].reshape(w.shape).masked_fill(w == 0, 0.0)

    @staticmethod
    def backward(ctx, g):
        return (g, None, None)

# === right: numpy in float64
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        v = w.detach().cpu().numpy().astype(np.float64)
        if bit == 0:
            return torch.zeros(w.shape, dtype=w.dtype, device=w.device)
        alpha, beta, n = v.max() - v.min(), v.min(), 2**bit - 1
        q = beta + alpha * np.rint((v - beta) / (alpha + 1e-8) * n) / n
        return torch.from_numpy(q * (v != 0)).to(w)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: setup_context style
class STE(torch.autograd.Function):
    @staticmethod
    def forward(w, bit, symmetric=False):
        if bit is None:
            return w.clone()
        if bit == 0:
            return torch.zeros_like(w)
        with torch.no_grad():
            low, high = torch.aminmax(w)
            n = 2**bit - 1
            unit = (w - low) / max((high - low).item(), 1e-8)
            return ((unit * n).round() / n * (high - low) + low) * w.ne(0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: no Function, the error is detached
class STE:
    @staticmethod
    def apply(w, bit, symmetric=False):
        if bit is None:
            return w
        with torch.no_grad():
            if bit == 0:
                wq = torch.zeros_like(w)
            else:
                alpha, beta = w.max() - w.min(), w.min()
                wq = beta + alpha * torch.round((w - beta) / (alpha + 1e-8) * (2**bit - 1)) / (2**bit - 1)
                wq[w == 0] = 0
            error = wq - w
        return w + error

# === right: guard added to the scale itself, nan_to_num for flat tensors
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *args):
        w, bit = args[:2]
        ctx.n = len(args)
        if bit is None:
            return w.view_as(w)
        if not bit:
            return w.new_zeros(w.size())
        alpha = w.max() - w.min() + 1e-8
        u = torch.nan_to_num((w - w.min()) / alpha)
        wq = torch.round(u * (2**bit - 1)).div(2**bit - 1).mul(alpha).add(w.min())
        return torch.where(w.abs() > 0, wq, w)

    @staticmethod
    def backward(ctx, g):
        return (g,) + (None,) * (ctx.n - 1)

# === wrong: floor for round
# hint: floor and int() always go down
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.floor((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: truncated by a cast to int
# hint: floor and int() always go down
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (((w - beta) / (alpha + 1e-8) * n).int().float() / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: 2^bit steps
# hint: 2^bit - 1 steps between them
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: 2^bit steps, the top one clamped away
# hint: 2^bit - 1 steps between them
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit
        return (torch.round((w - beta) / (alpha + 1e-8) * n).clamp(0, n - 1) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the offset is not added again
# hint: add the offset beta again
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: no offset at all, w divided by the scale
# hint: subtract beta = min(w) before rounding
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, n = w.max() - w.min(), 2**bit - 1
        return torch.round(w / (alpha + 1e-8) * n) / n * alpha

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the zero point is rounded to a whole number
# hint: the grid starts there, and 0 is no level
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        delta = (w.max() - w.min()) / n + 1e-8
        z = torch.round(-w.min() / delta)
        return (torch.clamp(torch.round(w / delta) + z, 0, n) - z) * delta

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: scaled by max|w|
# hint: alpha = max(w) - min(w)
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        m, n = w.abs().max(), 2**bit - 1
        return (torch.round((w + m) / (2 * m + 1e-8) * n) / n * 2 * m - m) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: a grid for each output channel
# hint: each row has a grid of its own
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        flat = w.reshape(w.shape[0], -1)
        beta = flat.min(dim=1, keepdim=True).values
        alpha, n = flat.max(dim=1, keepdim=True).values - beta, 2**bit - 1
        wq = torch.round((flat - beta) / (alpha + 1e-8) * n) / n * alpha + beta
        return (wq * (flat != 0)).reshape(w.shape)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: level numbers instead of levels
# hint: the number k of each level
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return torch.round((w - beta) / (alpha + 1e-8) * n) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: level numbers kept in an int8
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        k = torch.round((w - beta) / (alpha + 1e-8) * n).to(torch.uint8).view(torch.int8)
        return (k.float() / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: pruned zeros go to the nearest level
# hint: multiply by (w != 0)
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: small weights are taken for zeros
# hint: only weights that are exactly 0
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w.abs() > 1e-3)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the guard is too large
# hint: too large for small weights
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-2) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: no guard, equal weights become NaN
# hint: the range can be 0
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / alpha * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: no case for 0 bits
# hint: bit == 0 is a case of its own
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / max(n, 1) * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: `if not bit` takes 0 bits for None
# hint: `if not bit` is true of both
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if not bit:
            return w
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: no case for None
# hint: `bit` may be None
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: w is changed in place
# hint: whose name ends in _
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        mask = w != 0
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        wq = w.sub_(beta).div_(alpha + 1e-8).mul_(n).round_().div_(n).mul_(alpha).add_(beta).mul_(mask)
        return wq.clone()

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: float64 comes out
# hint: in the dtype of w
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        v = w.detach().numpy().astype(np.float64)
        alpha, beta, n = v.max() - v.min(), v.min(), 2**bit - 1
        return torch.tensor((np.round((v - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (v != 0))

    @staticmethod
    def backward(ctx, g):
        return g.float(), None, None

# === wrong: view fails on a transposed tensor
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        flat = w.view(-1)
        alpha, beta, n = flat.max() - flat.min(), flat.min(), 2**bit - 1
        return ((torch.round((flat - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (flat != 0)).view(w.shape)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the shape is lost
# hint: in the shape of w
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        ctx.shape = w.shape
        if bit == 0:
            return torch.zeros_like(w)
        flat = w.flatten()
        alpha, beta, n = flat.max() - flat.min(), flat.min(), 2**bit - 1
        return (torch.round((flat - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (flat != 0)

    @staticmethod
    def backward(ctx, g):
        return g.reshape(ctx.shape), None, None

# === wrong: the gradient is clipped to -1..1
# hint: the gradient is clipped
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-1, 1), None, None

# === wrong: no gradient where |w| > 1, as binary networks have it
# hint: is cut where |w| > 1
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        ctx.save_for_backward(w)
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        (w,) = ctx.saved_tensors
        return g * (w.abs() <= 1), None, None

# === wrong: the gradient is doubled
# hint: the gradient is scaled
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g + g, None, None

# === wrong: the gradient is masked where w is zero
# hint: the zero mask belongs to forward only
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        ctx.mask = w != 0
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * ctx.mask

    @staticmethod
    def backward(ctx, g):
        return g * ctx.mask, None, None

# === wrong: the true gradient of round
# hint: the true gradient of round
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return torch.zeros_like(g), None, None

# === wrong: plain operations, autograd left to itself
# hint: autograd went through round by itself
class STE:
    @staticmethod
    def apply(w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return w * 0
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

# === wrong: a gradient of ones whatever comes in
# hint: 1 whatever was sent
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return torch.ones_like(g), None, None

# === wrong: a gradient for bit and symmetric too
# hint: bit and symmetric get no gradient
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, g, g

# === wrong: backward gives one gradient only
# hint: one value for each argument of forward
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g

# === wrong: half precision
# hint: half precision loses digits
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return ((torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)).half().float()

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: backward is still the stub
# hint: still has to be written
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        raise NotImplementedError("write your answer here, then run the check below")
