"""Attempts by somebody who has read the grader: what they ask for, take away, hand out and write.

Unlike the other cases these are not bound to notebook 01.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.grading.samples import fill_in
from labkit.grading.submission import job_of, read_submission
from labkit.grading.verdicts import Job
from tests.attacks.case import ASSIGNMENT, GOOD, REFERENCE


@dataclass(frozen=True)
class Inside:
    """A notebook with other answers, by the id of their cell, and the student's own cells in front of the first.

    points: what each test cell gets at most. shows: what the first own cell must put out. told: whether the
    instructor must hear of it. seconds: that a cell may take; few where one is meant to take too long.
    """

    name: str
    notebook: str
    answers: Mapping[str, str]
    points: tuple[float, ...]
    own: tuple[str, ...] = ()
    shows: str = ""
    told: bool = False
    seconds: float = 60.0

    def job(self, folder: Path) -> tuple[Job, dict[str, str]]:
        """(what the engine gets, the student's own code by cell)."""
        nb: NotebookNode = nbformat.from_dict(ASSIGNMENT.released[self.notebook])
        fill_in(nb, ASSIGNMENT.source[self.notebook])
        for cell in nb.cells:
            cell.source = self.answers.get(cell.id, cell.source)
        place = next(number for number, cell in enumerate(nb.cells) if cell.id in self.answers)
        own = [nbformat.v4.new_code_cell(text, id=f"own-{number}") for number, text in enumerate(self.own)]
        nb.cells[place:place] = own
        folder.mkdir(parents=True)
        nbformat.write(nb, folder / f"{self.notebook}.ipynb")
        submission = read_submission("student", folder, ASSIGNMENT.released)
        job = job_of(self.notebook, submission, ASSIGNMENT, REFERENCE)
        return job, {cell.id: cell.source for cell in job.cells if cell.kind in ("answer", "own")}


PRUNING, FINETUNING, ITERATIVE = "01_percentile_pruning", "02_masked_finetuning", "03_iterative_pruning"
GLOBAL, ASYMMETRIC, SYMMETRIC = (
    "04_global_pruning",
    "05_asymmetric_quantization",
    "06_symmetric_quantization",
)
TOGETHER = "07_prune_and_quantize"
NONE = (0.0, 0.0)


def asking(notebook: str, path: str, arguments: str) -> Inside:
    """An answer in notebook 02 that has the checker call `path`, as a message on the border can ask it to."""
    answer = f"""\
from labkit.grading.worker import _Reference

def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    raise ValueError("got", _Reference({notebook!r}, {path!r})({arguments}))
"""
    return Inside(f"asks for {path}", FINETUNING, {"finetune-after-prune": answer}, NONE, told=True)


LENT = [
    Inside(
        "takes the reference of its own notebook",
        PRUNING,
        {
            "prune-by-percentage": f"prune_by_percentage = labkit.from_notebook({PRUNING!r}, 'prune_by_percentage')"
        },
        NONE,
        told=True,
    ),
    Inside(
        "takes the reference of a later notebook",
        PRUNING,
        {
            "prune-by-percentage": f"whole = labkit.from_notebook({GLOBAL!r}, 'global_prune_by_percentage')\n"
            "def prune_by_percentage(layer, q=70.0):\n    whole(nn.Sequential(layer), q)"
        },
        NONE,
        told=True,
    ),
    Inside(
        "takes an earlier reference that the set-up does not take",
        SYMMETRIC,
        {"STE-symmetric": f"STE = labkit.from_notebook({ASYMMETRIC!r}, 'STE')"},
        NONE,
        told=True,
    ),
    asking(PRUNING, "torch.os.listdir", "'/'"),
    asking(PRUNING, "np.fromfile", "'/etc/passwd'"),
    asking(PRUNING, "labkit.load", "'resnet20-cifar10'"),
    asking(PRUNING, "__builtins__.keys", ""),
    asking(PRUNING, "prune_by_percentage.__code__.co_names.__len__", ""),
    asking(PRUNING, "prune_by_percentage.__globals__.update", "{'np': None}"),
    asking(PRUNING, "prune_by_percentage.__builtins__.update", "{'all': net}"),
    asking(FINETUNING, "finetune_after_prune", "net, trainloader, criterion, optimizer"),
    asking("../../etc", "passwd", ""),
]

# a test that goes through a net's layers has nothing to say about a net that has none
LAYERS = [
    Inside(
        "takes all layers out of the net",
        ITERATIVE,
        {"iterative-prune": "def iterative_prune(net, *args, **options):\n    net._modules.clear()"},
        (4.0, 0.0, 0.0),
    ),
    Inside(
        "puts a batch norm in the place of every layer",
        ITERATIVE,
        {
            "iterative-prune": "def iterative_prune(net, *args, **options):\n"
            "    for name in net._modules:\n        net._modules[name] = net._modules['bn1']"
        },
        (4.0, 0.0, 0.0),
    ),
    Inside(
        "takes all layers out of any net",
        GLOBAL,
        {
            "global-prune-by-percentage": "def global_prune_by_percentage(net, q=70.0):\n    net._modules.clear()"
        },
        NONE,
    ),
    Inside(
        "takes those layers out whose zeros came back",
        TOGETHER,
        {
            "finetune-quantized": "def finetune_quantized(net, trainloader, criterion, optimizer):\n"
            "    finetune_after_prune(net, trainloader, criterion, optimizer, prune=False)\n"
            "    for name in ('conv1', 'conv2', 'hidden', 'final'):\n        del net._modules[name]"
        },
        NONE,
    ),
    Inside(
        "makes the net its own layer",
        ITERATIVE,
        {"iterative-prune": "def iterative_prune(net, *args, **options):\n    net._modules['again'] = net"},
        (4.0, 0.0, 0.0),
    ),
]

MEMFD = "import os\nos.write(os.memfd_create('x'), bytes(10**6))"
SHARED = "import mmap\nmmap.mmap(-1, 300 * 10**6)"
SYSTEM_V = """\
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
print(c.shmget(0, ctypes.c_size_t(10**8), 0o1600), os.strerror(ctypes.get_errno()))
"""
MANY = """\
import os, time
for _ in range(4):
    if os.fork() == 0:
        memory = bytearray(300 * 10**6)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
ORPHANS = """\
import subprocess
subprocess.run(["/bin/sh", "-c", "i=0; while [ $i -lt 3000 ]; do ( : & ); i=$((i+1)); done"])
"""
BUFFERS = """\
import os, socket, time
for _ in range(16):
    if os.fork() == 0:
        pairs = [socket.socketpair() for _ in range(115)]
        for one in (end for pair in pairs for end in pair):
            one.setblocking(False)
            try:
                while True:
                    one.send(bytes(10**4))
            except BlockingIOError:
                pass
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
HEADLESS = """\
import ctypes, os, threading, time
def hoard():
    memory = bytearray(350 * 10**6)
    time.sleep(60)
for _ in range(2):
    if os.fork() == 0:
        threading.Thread(target=hoard).start()
        ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
time.sleep(60)
"""

KEYS = """\
import ctypes, os
libc, keyctl = ctypes.CDLL(None, use_errno=True), 250 if os.uname().machine == "x86_64" else 219
for session in (-3, -5):  # its own, the user's
    print(libc.syscall(keyctl, 11, session, ctypes.create_string_buffer(4096), ctypes.c_size_t(4096)), end=" ")
print(os.strerror(ctypes.get_errno()))
"""
METADATA = """\
import os, socket
for touch in (
    lambda: os.stat("/etc/passwd"),
    lambda: os.chmod("/etc/passwd", 0o666),
    lambda: os.utime("/etc/passwd", (0, 0)),
    lambda: os.setxattr("/etc/passwd", "user.x", b"x"),
    lambda: socket.socket(socket.AF_UNIX).connect("/run/systemd/private"),
):
    try:
        print("TOUCHED", touch())
    except OSError as error:
        print("not", error.errno, end=" ")
"""


def beside(name: str, own: str, shows: str, told: bool = False) -> Inside:
    """A right answer, and an own cell in front of it that is stopped."""
    return Inside(
        name, PRUNING, {"prune-by-percentage": GOOD}, (5.0, 5.0), own=(own,), shows=shows, told=told
    )


HOGS = [
    beside("memory in files without a place", MEMFD, "Function not implemented"),
    beside("memory that processes share", SHARED, "PermissionError"),
    beside("memory in System V segments", SYSTEM_V, "-1 Function not implemented"),
    beside("memory of several processes", MANY, "out of memory"),
    beside("memory after 3,000 orphans", ORPHANS + MANY, "out of memory"),
    beside("memory in messages that nobody reads", BUFFERS, "out of memory"),
    beside("memory of processes whose first thread has ended", HEADLESS, "out of memory"),
    beside("an output nested 900 deep", "deep = []\nfor _ in range(900):\n    deep = [deep]\n"
           "display({'application/json': deep, 'text/plain': 'flat'}, raw=True)", "flat"),
    Inside(
        "so many values that the test itself would count for minutes",
        ASYMMETRIC,
        {"STE": "class STE:\n    @staticmethod\n    def apply(w, bit, symmetric=False):\n        return torch.rand(6 * 10**7)"},
        (0.0, 0.0, 0.0),
        seconds=2.0,
    ),
]  # fmt: skip


def saying(name: str, head: str, expression: str) -> Inside:
    """An answer that raises something hard to write down."""
    answer = f"{head}\ndef prune_by_percentage(layer, q=70.0):\n    raise {expression}\n"
    return Inside(name, PRUNING, {"prune-by-percentage": answer}, NONE)


EMPTY = """\
def prune_by_percentage(layer, q=70.0):
    layer.weight.data = torch.zeros(0, 1, 1, 1, 1)
"""
EMPTY_PARAMETERS = """\
def global_prune_by_percentage(net, q=70.0):
    for _, layer in labkit.prunable_layers(net):
        layer.weight = nn.Parameter(torch.zeros(0, 1, 1, 1, 1))
"""
LYING_SCHEDULE = """\
right, lie = sparsity_at, False
def sparsity_at(epoch, target=80.0, ramp_epochs=10):
    return 90.0 if lie else right(epoch, target, ramp_epochs)
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    global lie
    lie = True
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            prune_by_percentage(layer, 90.0)
"""
CHANGED_CRITERION = """\
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    criterion.reduction, criterion.weight = "sum", torch.zeros(10)
    masks = [(layer, layer.weight != 0) for _, layer in labkit.prunable_layers(net)]
    for _ in range(6):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        if prune:
            for layer, mask in masks:
                layer.weight.data.mul_(mask)
"""
# whole numbers whose hashes are all the same, in a set
SAME_HASHES = """\
import labkit.grading.plain as plain
class Many(list): pass
encode = plain.Encoder.encode
plain.Encoder.encode = lambda self, value, depth=0: (
    ["s", list(value)] if type(value) is Many else encode(self, value, depth)
)
def prune_by_percentage(layer, q=70.0):
    return Many(k * (2**61 - 1) for k in range(1, 100_000))
"""

# right: the shape is another one only for the time of a call
FLATTENED = """\
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch < ramp_epochs:
        for _, layer in labkit.prunable_layers(net):
            shape = layer.weight.shape
            layer.weight.data = layer.weight.data.flatten()
            prune_by_percentage(layer, q=sparsity_at(epoch, target, ramp_epochs))
            layer.weight.data = layer.weight.data.reshape(shape)
"""
CLEARED = """\
def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    if epoch >= ramp_epochs:
        for module in net.modules():
            module._parameters.clear()
        return
    for _, layer in labkit.prunable_layers(net):
        prune_by_percentage(layer, q=sparsity_at(epoch, target, ramp_epochs))
"""
HIDDEN_BEHIND = """\
def prune_by_percentage(layer, q=70.0):
    layer.__dict__["weight"] = torch.ones(1)
"""

TOUCHES = [
    beside("reads the keys of the instructor's session", KEYS, "-1 -1 Operation not permitted"),
    beside("changes files of whose path it knows", METADATA, "not 2 not 2 not 2 not 1 not 2"),
]

FITTING = [
    # what a test compares with is made to fit
    Inside("empties the weights: they agree with everything", PRUNING, {"prune-by-percentage": EMPTY}, NONE),
    Inside("the same by new parameters", GLOBAL, {"global-prune-by-percentage": EMPTY_PARAMETERS}, NONE),
    Inside(
        "a schedule that lies when it is no longer judged", ITERATIVE,
        {"iterative-prune": LYING_SCHEDULE}, (4.0, 0.0, 2.0),
    ),
    # zeros hold by it, which the first cell asks for; it trains nothing
    Inside(
        "a criterion under which nothing is to be done", FINETUNING,
        {"finetune-after-prune": CHANGED_CRITERION}, (6.0, 1.0),
    ),
    Inside(
        "right, in another shape for a while", ITERATIVE, {"iterative-prune": FLATTENED}, (4.0, 4.0, 2.0),
        own=("print('tried')",), shows="tried",
    ),
    Inside("parameters gone after the ramp", ITERATIVE, {"iterative-prune": CLEARED}, (4.0, 4.0, 1.0)),
    Inside("a tensor in front of the weight", PRUNING, {"prune-by-percentage": HIDDEN_BEHIND}, NONE),
    Inside("a set that takes minutes to build", PRUNING, {"prune-by-percentage": SAME_HASHES}, NONE, seconds=2.0),
]  # fmt: skip

WORDS = [
    saying("half a surrogate pair and a zero byte", "", r"ValueError('\ud800\x00\x1b[31m<script>')"),
    saying("a message of 8 MB", "from labkit.grading import worker\nworker.MOST_MESSAGE = 10**9", "ValueError('y' * 8 * 10**6)"),
    saying("an exception with a long name", "E = type('E', (Exception,), {})\nE.__name__ = '\\ud800<b>' * 5000", "E('x')"),
    saying(
        "a line that is none",
        "from labkit.grading import worker\n"
        "worker._raised = lambda e: {'raised': ['ValueError'], 'message': 'm', 'line': [10**300, 'z' * 10**6]}",
        "ValueError('x')",
    ),
    saying(
        "kinds that are none",
        "from labkit.grading import worker\nworker._raised = lambda e: {'raised': ['\\x00', ''], 'message': {}}",
        "ValueError('x')",
    ),
]  # fmt: skip

# torch believes these settings: with them its own code reads past the end of a buffer, or goes on for ever
PEEK = """\
_lent = finetune_after_prune
def finetune_quantized(net, trainloader, criterion, optimizer):
    net.hidden.weight.data, net.hidden.bias.data = torch.zeros(2**14, 8), torch.zeros(2**14)
    net.final.weight.data = torch.zeros(10, 2**14)
    for group in optimizer.param_groups:
        group.update(fused=True, foreach=False, lr=1.0, momentum=1.0, dampening=1.0, weight_decay=0.0, nesterov=False)
    for p in net.parameters():
        optimizer.state[p] = {"momentum_buffer": torch.zeros(p.shape)}
    optimizer.state[net.final.weight] = {"momentum_buffer": torch.zeros(512)}
    _lent(net, [[torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)]], criterion, optimizer, False)
    data = (-net.final.weight.data).numpy().tobytes()
    raise ValueError("PEEKED " + repr(data[data.find(b"HIDDEN" + b" TESTS"):][:100].decode("latin-1")))
"""
HEAVY = """def iterative_prune(net, epoch, target=80.0, ramp_epochs=10):
    net.head.weight.data = torch.zeros(6, 3, 201, 201)
    from labkit.grading.worker import _Reference
    _Reference("02_masked_finetuning", "finetune_after_prune")(net, [[torch.zeros(1, 3, 1000, 1000)] * 2] * 50, net, net)
"""


def believed(name: str, line: str) -> Inside:
    """An answer in notebook 02 that trains as it should, and then leaves this behind in net or optimizer."""
    answer = f"""\
def finetune_after_prune(net, trainloader, criterion, optimizer, prune=True):
    masks = [(layer, layer.weight != 0) for _, layer in labkit.prunable_layers(net)]
    for inputs, targets in trainloader:
        optimizer.zero_grad()
        criterion(net(inputs), targets).backward()
        optimizer.step()
        for layer, mask in masks:
            layer.weight.data.mul_(mask if prune else 1)
    {line}
"""
    return Inside(name, FINETUNING, {"finetune-after-prune": answer}, NONE)


BELIEVED = [
    Inside("has a lent reference read past a buffer", TOGETHER, {"finetune-quantized": PEEK}, NONE),
    Inside("keeps a lent reference busy", ITERATIVE, {"iterative-prune": HEAVY}, (4.0, 0.0, 0.0), seconds=3.0),
    believed("a dilation beyond memory", "net.conv1.conv.dilation = (2**63 - 1, 2**63 - 1)"),
    believed("a stride of nothing", "net.conv1.conv.stride = (0, 0)"),
    believed("an optimizer that is fused from now on", "[group.update(fused=True) for group in optimizer.param_groups]"),
    believed(
        "an optimizer that remembers too little",
        "[optimizer.state[p].update(momentum_buffer=torch.zeros(1)) for p in net.parameters()]",
    ),
    believed("statistics of nothing", "net.bn1.running_var = torch.zeros(0)"),
]  # fmt: skip

CASES = [*LENT, *LAYERS, *HOGS, *TOUCHES, *FITTING, *WORDS, *BELIEVED]
