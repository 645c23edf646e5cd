"""Honest ways to write the same answer: full marks, and nothing for the instructor to look at."""

from __future__ import annotations

from tests.attacks.case import GOOD, Case

NOISY = """\
import logging, sys, warnings
from tqdm.auto import tqdm

def prune_by_percentage(layer, q=70.0):
    warnings.warn("careful")
    print("pruning", q, file=sys.stderr)
    logging.getLogger("me").warning("pruning")
    for _ in tqdm(range(3)):
        pass
    weight = layer.weight.data
    weight.mul_(weight.abs() >= np.percentile(weight.abs().cpu().numpy(), q))
"""
HELPED = """\
from functools import partial
from collections.abc import Iterable

def _threshold(values, q):
    return np.percentile(values, q)

class Pruner:
    def __init__(self, q):
        self.q = q
    def __call__(self, layer):
        w = layer.weight.data
        w.mul_(w.abs() >= _threshold(w.abs().cpu().numpy(), self.q))

def prune_by_percentage(layer, q=70.0):
    Pruner(q)(layer)
"""
SUBCLASS = """\
class MyLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x)

class Threshold(float):
    def __repr__(self):
        return f"threshold {float(self):.3f}"

def prune_by_percentage(layer, q=70.0):
    w = layer.weight.data
    w.mul_(w.abs() >= Threshold(np.percentile(w.abs().cpu().numpy(), q)))
"""
GLOBALS = """\
def prune_by_percentage(layer, q=70.0):
    random.random(), math.pi, time.time(), F, optim, profile
    w = layer.weight.data.to(device)
    layer.weight.data.mul_(w.abs() >= np.percentile(w.abs().cpu().numpy(), q))
"""
OLD_STATE = """\
cache = {}
def prune_by_percentage(layer, q=70.0):
    cache[id(layer)] = q
    w = layer.weight.data
    w.mul_(w.abs() >= np.percentile(w.abs().cpu().numpy(), q))
"""
CASES = [
    Case("the answer itself"),
    Case("warnings, prints, logging and a progress bar", NOISY),
    Case("own helpers, classes and imports", HELPED),
    Case("own subclasses of layers and numbers", SUBCLASS),
    Case("uses what the set-up cell defines", GLOBALS),
    Case("keeps notes of its calls", OLD_STATE),
    Case(
        "extra cells that try it out",
        before="scratch = nn.Linear(4, 4)\nscratch",
        between="prune_by_percentage(scratch)\nprint(scratch.weight)",
        after="1 / 0",
    ),
    Case("names redefined afterwards", between="layer = 3\nlabkit = 'mine'", after="del torch"),
    Case("the answer redefined at the end", after="def prune_by_percentage(layer, q):\n    return None"),
    Case("magics", before="%matplotlib inline\n%time x = 3\n%timeit -n1 -r1 x + 1"),
    Case("a cell magic", before="%%time\nx = 3"),
    Case("installs a package", before="!pip install tqdm\n%pip install tqdm\n!nvidia-smi"),
    Case("shows pictures", before="plt.hist([1, 2, 2])\nplt.title('mine')\nplt.show()"),
    Case("draws in its answer", GOOD + "    plt.figure()\n    plt.plot([1, 2])\n    plt.show()\n"),
    Case(
        "trains something of its own before",
        before="net = nn.Linear(3, 1)\nopt = optim.SGD(net.parameters(), 0.1)\n"
        "for _ in range(5):\n    opt.zero_grad()\n    net(torch.ones(2, 3)).sum().backward()\n    opt.step()",
    ),
    Case(
        "a loader with workers, a pool",
        GOOD + "    assert (batches, absolute) == (2, [1, 2])\n",
        before="import multiprocessing\nfrom torch.utils.data import DataLoader\n"
        "batches = len(list(DataLoader(list(range(8)), batch_size=4, num_workers=2)))\n"
        "with multiprocessing.Pool(2) as pool:\n    absolute = pool.map(abs, [-1, 2])",
    ),
    Case(
        "a temporary file",
        GOOD + "    assert kept == b'mine'\n",
        before="import tempfile\nwith tempfile.NamedTemporaryFile() as file:\n"
        "    file.write(b'mine')\n    file.flush()\n    kept = open(file.name, 'rb').read()",
    ),
    Case("sets threads and seeds", before="torch.set_num_threads(4)\ntorch.manual_seed(1)\nnp.random.seed(2)"),
    Case("writes a file of notes", before="with open('notes.txt', 'w') as f:\n    f.write('hello')\nopen('notes.txt').read()"),
    Case(
        "Colab's metadata",
        metadata={
            "colab": {"provenance": [], "gpuType": "T4", "toc_visible": True},
            "accelerator": "GPU",
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "widgets": {"application/vnd.jupyter.widget-state+json": {}},
        },
    ),
    Case(
        "VS Code's metadata and another kernel",
        metadata={
            "kernelspec": {"name": "my-env", "display_name": "my env (3.12)", "language": "python"},
            "vscode": {"interpreter": {"hash": "0" * 64}},
            "orig_nbformat": 4,
        },
    ),
    Case("returns the layer", GOOD + "    return layer\n"),
    Case(
        "with torch.no_grad and copy_",
        "def prune_by_percentage(layer, q=70.0):\n    with torch.no_grad():\n        a = layer.weight.abs()\n"
        "        t = np.percentile(a.numpy(), q)\n        layer.weight.copy_(torch.where(a >= t, layer.weight, 0.0))\n",
    ),
]  # fmt: skip
