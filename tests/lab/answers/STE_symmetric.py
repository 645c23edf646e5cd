# ruff: noqa
# Answers to notebook 06's STE, both grids. Each runs in the notebook's own namespace.

# === right: the report's style, a float mask and an if for each grid
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
                w_min, w_max = w.min(), w.max()
                alpha = w_max - w_min
                ws = (w - w_min) / (alpha + 1e-8)
                step = 2 ** bit - 1
                wq = torch.round(ws * step) / step * alpha + w_min
            else:
                w_absmax = torch.max(torch.abs(w))
                alpha = 2 * w_absmax
                ws = (w + w_absmax) / (alpha + 1e-8)
                step = 2 ** bit - 1
                R = torch.round(ws * step) / step
                wq = R * alpha - w_absmax
            wq = wq * weight_mask
        return wq

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: odd numbers of half steps
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if not symmetric:
            low, high = w.min(), w.max()
            n = 2**bit - 1
            q = low + torch.round((w - low) / (high - low + 1e-8) * n) / n * (high - low)
            return torch.where(w == 0, w, q)
        half = w.abs().max() / (2**bit - 1)
        code = 2 * torch.floor(w / (2 * half + 1e-8)) + 1
        top = 2**bit - 1
        return torch.where(w == 0, torch.zeros_like(w), code.clamp(-top, top) * half)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: a table of levels for either grid
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        m = w.abs().max().item()
        low, high = (-m, m) if symmetric else (w.min().item(), w.max().item())
        table = torch.linspace(low, high, 2**bit, dtype=torch.float64)
        nearest = (w.double().reshape(-1, 1) - table).abs().argmin(dim=1)
        return table[nearest].to(w.dtype).reshape(w.shape).masked_fill(w == 0, 0.0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: numpy in float64, sign and magnitude apart
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w.clone()
        v, n = w.detach().cpu().numpy().astype(np.float64), 2**bit - 1
        if bit == 0:
            q = np.zeros_like(v)
        elif symmetric:
            m = np.abs(v).max() + 1e-300
            j = np.minimum(np.floor(np.abs(v) / m * n / 2), (n - 1) // 2)
            q = np.sign(v) * (2 * j + 1) * m / n
        else:
            low, high = v.min(), v.max()
            q = np.where(v == 0, 0, low + np.rint((v - low) / (high - low + 1e-8) * n) / n * (high - low))
        return torch.as_tensor(q, dtype=w.dtype, device=w.device)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === right: setup_context style, a helper for the grid, printing and warning
def to_grid(w, low, high, bit):
    import warnings
    warnings.warn("rounding")
    print("rounding to", bit, "bits")
    n = 2**bit - 1
    return ((w - low) / (high - low + 1e-8) * n).round() / n * (high - low) + low


class STE(torch.autograd.Function):
    @staticmethod
    def forward(w, bit, symmetric=False):
        if bit is None:
            return w.clone()
        if bit == 0:
            return torch.zeros_like(w)
        m = w.abs().max()
        q = to_grid(w, -m, m, bit) if symmetric else to_grid(w, w.min(), w.max(), bit)
        return q * w.ne(0)

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
        v = w.detach()
        if bit == 0:
            return w - v
        m = v.abs().max()
        beta = -m if symmetric else v.min()
        alpha = 2 * m if symmetric else v.max() - v.min()
        q = beta + alpha * torch.round((v - beta) / (alpha + 1e-8) * (2**bit - 1)) / (2**bit - 1)
        return w + (torch.where(v == 0, v, q) - v)

# === wrong: max(w) for max|w|
# hint: not the largest weight
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m = w.max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: |max(w)| for max|w|
# hint: not the largest weight
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m = w.max().abs()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the field's grid with zero, 2^bit - 1 levels
# hint: has zero as a level
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m, half = w.abs().max(), max(2 ** (bit - 1) - 1, 1)
            return torch.round(w / (m + 1e-8) * half) / half * m
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: two's complement codes, the top one clamped
# hint: 2^bit - 1 steps between them
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m, half = w.abs().max(), 2 ** (bit - 1)
            return torch.round(w / (m + 1e-8) * half).clamp(-half, half - 1) / half * m
        alpha, beta, n = w.max() - w.min(), w.min(), 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the asymmetric grid for both
# hint: the asymmetric grid
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
        return g, None, None

# === wrong: the symmetric grid for both
# hint: the grid from -m to m: if symmetric is False
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        m, n = w.abs().max(), 2**bit - 1
        alpha, beta = 2 * m, -m
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the branches are swapped
# hint: the branches are swapped
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if not symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: m for 2 m
# hint: from -m to m is 2 m
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m = w.abs().max()
            alpha, beta = m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: not shifted back
# hint: add the offset beta again
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            m = w.abs().max()
            return torch.round((w + m) / (2 * m + 1e-8) * n) / n * 2 * m * (w != 0)
        alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: centred on the middle of the range, not on zero
# hint: from min(w) to max(w)
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            middle = (w.max() + w.min()) / 2
            m = (w - middle).abs().max()
            alpha, beta = 2 * m, middle - m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: magnitudes quantized to 2^bit levels each side
# hint: 2^bit levels in all
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            m = w.abs().max()
            return torch.sign(w) * torch.round(w.abs() / (m + 1e-8) * n) / n * m
        alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: floor for round in the new branch
# hint: floor and int() always go down
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            m = w.abs().max()
            return (torch.floor((w + m) / (2 * m + 1e-8) * n) / n * 2 * m - m) * (w != 0)
        alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: 2^bit steps in the new branch
# hint: 2^bit - 1 steps between them
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit if symmetric else 2**bit - 1
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: zeros not kept in the new branch
# hint: multiply by (w != 0)
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            m = w.abs().max()
            return torch.round((w + m) / (2 * m + 1e-8) * n) / n * 2 * m - m
        alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: no guard, all-zero weights become NaN
# hint: the range can be 0
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: an m for each output channel
# hint: each row has an m of its own
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            m = w.reshape(w.shape[0], -1).abs().amax(dim=1).reshape(-1, *[1] * (w.dim() - 1))
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: m is a robust 3 sigma, larger weights are clipped
# hint: not a multiple of the standard deviation
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            m = 3 * w.std()
            return (torch.round(((w + m) / (2 * m + 1e-8)).clamp(0, 1) * n) / n * 2 * m - m) * (w != 0)
        alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: w is shifted in place
# hint: whose name ends in _
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        n = 2**bit - 1
        if symmetric:
            mask, m = w != 0, w.abs().max()
            w += m
            return (torch.round(w / (2 * m + 1e-8) * n) / n * 2 * m - m) * mask
        alpha, beta = w.max() - w.min(), w.min()
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

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
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0).double()

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the asymmetric branch is missing
# hint: bring your asymmetric branch over
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if not symmetric:
            raise NotImplementedError("see notebook 05")
        m, n = w.abs().max(), 2**bit - 1
        alpha, beta = 2 * m, -m
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the asymmetric branch gives w back
# hint: w came back as it was
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if not symmetric:
            return w
        m, n = w.abs().max(), 2**bit - 1
        alpha, beta = 2 * m, -m
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g, None, None

# === wrong: the gradient is clipped
# hint: the gradient is clipped
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-1, 1), None, None

# === wrong: the gradient is halved
# hint: the gradient is scaled
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return g / 2, None, None

# === wrong: the true gradient of round
# hint: the true gradient of round
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if bit is None:
            return w
        if bit == 0:
            return torch.zeros_like(w)
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        return 0 * g, None, None

# === wrong: None and 0 bits only in the asymmetric branch
# hint: `bit` may be None
class STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, bit, symmetric=False):
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            if bit is None:
                return w
            if bit == 0:
                return torch.zeros_like(w)
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

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
        if symmetric:
            m = w.abs().max()
            alpha, beta = 2 * m, -m
        else:
            alpha, beta = w.max() - w.min(), w.min()
        n = 2**bit - 1
        return (torch.round((w - beta) / (alpha + 1e-8) * n) / n * alpha + beta) * (w != 0)

    @staticmethod
    def backward(ctx, g):
        raise NotImplementedError("write your answer here, then run the check below")
