"""What an exception in a student's code is told as: its line of their cell, and what usually mends it."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable

# what torch says where there is no GPU, or none for a process that was forked
NO_GPU = (
    r"NVIDIA driver|not compiled with CUDA|No CUDA GPUs|re-initialize CUDA|no CUDA-capable device|CUDA error"
    r"|on a CUDA device|HIP GPUs|support for (MPS|mps)|MPS backend|compiled with XPU|accelerator device"
)
KNOWN = (
    # what the message says, and a hint that is true wherever it is raised
    (
        r"must implement either the backward",
        "STE needs a method called backward, with @staticmethod above it, that returns g, None, None.",
    ),
    (
        r"must implement the forward function",
        "STE needs a method called forward, with @staticmethod above it.",
    ),
    (
        r"'(tuple|str)' object has no attribute '(weight|bias|parameters)'",
        "a name or a (name, layer) pair is not a layer: for name, layer in labkit.prunable_layers(net).",
    ),
    (
        r"'generator' object is not subscriptable|object of type 'generator' has no len",
        "labkit.prunable_layers(net) gives one pair at a time: list(labkit.prunable_layers(net)) has all.",
    ),
    (
        r"incorrect number of gradients",
        "backward returns one value for each argument of forward: g, None, None.",
    ),
    (
        r"gradient different than None at position",
        "bit and symmetric get no gradient: backward returns g, None, None.",
    ),
    (
        r"pow\(\).*'NoneType'|'NoneType'.*\bbits?\b",
        "`bit` may be None: return w before anything is calculated with it.",
    ),
    (
        r"non-static forward method",
        "write @staticmethod above forward, and above backward.",
    ),
    (
        r"Can't call numpy\(\) on Tensor that requires grad",
        "autograd keeps track of this tensor: take .data or .detach() of it before .numpy().",
    ),
    (
        r"leaf Variable that requires grad is being used in an in-place operation",
        "a Parameter itself is not written to: change layer.weight.data, or work under torch.no_grad().",
    ),
    (
        r"cannot assign .* as parameter",
        "a layer's Parameter stays the same object: write the new values into layer.weight.data.",
    ),
    (
        r"quantile\(\) q (values )?must be in the range \[0, 1\]",
        "torch.quantile takes q from 0 to 1: divide the percent by 100.",
    ),
    (r"Percentiles must be in the range \[0, 100\]", "np.percentile takes q from 0 to 100 only."),
    (
        r"does not require grad and does not have a grad_fn",
        "the loss is cut off from the weights: no detach(), .data or torch.no_grad() on the way to it.",
    ),
    (
        r"backward through the graph a second time",
        "a loss goes backward once: make a new one, with net(inputs), for each batch.",
    ),
    (
        r"modified by an inplace operation",
        "a tensor that backward() needs was changed before it: backward() comes right after the loss.",
    ),
    (
        NO_GPU,
        "grading has no GPU: use .to(weight.device) rather than .cuda() or a fixed device.",
    ),
    (
        r"No module named",
        "grading has the lab's packages only: hand in your own .py files beside the notebook.",
    ),
    (r"can't convert cuda.* to numpy", "numpy works on the CPU: .cpu().numpy()."),
    (
        r"Expected all tensors to be on the same device",
        "make new tensors where the weight is: device=weight.device, or .to(weight.device).",
    ),
)  # fmt: skip


why_missing: Callable[[str], str | None] | None = None
"""While grading: why a name is not there. None everywhere else."""
_NAME = re.compile(r"name '(\w+)' is not defined")


def explain(error: Exception, check: Callable[..., object], answer: str) -> tuple[str, str | None]:
    """(what the student's code raised and in which of their lines, a hint if the error is a known one).

    answer: what the function or class that was checked is called.
    """
    text = str(error).strip().splitlines()
    message = f"it raised {type(error).__name__}" + (f": {text[0][:200]}" if text else "")
    number, line, place = _their_line(error, check)
    message += f" (line {number} of {place}: {line})" if line else ""
    message = " ".join(message.split())  # one line, whatever they are called
    missing = _NAME.match(text[0]) if text and isinstance(error, NameError) else None
    if missing and why_missing is not None and (why := why_missing(missing[1])):
        return message, why
    if text and re.match(rf"(\S+\.)?{re.escape(answer)}(\.\w+)?\(\) (got an unexp|takes|missing)", text[0]):
        return message, "its arguments and their names stay as the stub has them."
    return message, next((hint for pattern, hint in KNOWN if re.search(pattern, message)), None)


def is_stub(error: NotImplementedError, check: Callable[..., object]) -> bool:
    """Whether the stub raised it: torch does too, for a missing method, or numbers of a wrong kind."""
    _, line, _ = _their_line(error, check)
    return "NotImplementedError" in line or not (line or "must implement" in str(error))


def _their_line(error: Exception, check: Callable[..., object]) -> tuple[int, str, str]:
    """(its number, its text, whose it is)."""
    # only the student's own lines: none of the libraries', and above all none of a hidden test's
    ours = (
        check.__code__.co_filename,
        _LABKIT,
        "<frozen",
        "<test ",
    )  # which is how the grader calls test cells
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(ours) and "site-packages" not in f.filename]
    number, line, place = 0, "", "your cell"
    if theirs:
        number, file = theirs[-1].lineno or 0, theirs[-1].filename
        line = linecache.getline(file, number).strip()
        if ", code cell" in file:  # of a function that came from another notebook
            place = file.strip("<>")
    # while grading, the student's code runs in another process, which says the line
    number, line = getattr(error, "student_line", (number, line))
    return number, line, place


_LABKIT = __file__.rsplit("check", 1)[0]
