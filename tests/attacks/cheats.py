"""Attempts to get points for a wrong answer, to read what is hidden, or to get out. None gains a point.

The answer below each is the same wrong one, worth 7 of 10; an attempt may lose points, never gain any.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.attacks.case import WRONG, Case


@dataclass(frozen=True)
class Cheat(Case):
    """A case whose points may not be more than those of the wrong answer."""

    answer: str = WRONG
    suspicious: bool = True


def in_answer(body: str, head: str = "") -> str:
    """The wrong answer, whose function does this first."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    first, rest = WRONG.split("\n", 1)
    return f"{head}\n{first}\n{lines}{rest}"


LIAR = """\
class Agrees(torch.Tensor):
    def __eq__(self, other): return torch.ones_like(torch.as_tensor(other), dtype=torch.bool)
    def __ne__(self, other): return torch.zeros_like(torch.as_tensor(other), dtype=torch.bool)
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None): return True
"""
SOCKETS = """\
import os, socket, stat
mine = []
for fd in range(3, 256):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            mine.append(socket.socket(fileno=os.dup(fd)))
    except OSError:
        pass
"""
FORGED = (
    SOCKETS
    + """\
import json, struct
def message(header):
    text = json.dumps(header | {"sizes": []}).encode()
    return struct.pack("!I", len(text)) + text
for s in mine:
    try:
        s.setblocking(False)
        s.send(message({"names": {"prune_by_percentage": {"kind": "callable", "name": "x"}}}))
        for _ in range(200):
            s.send(message({"result": None, "changes": {"storages": [], "tensors": [], "arrays": [], "objects": []}}))
    except OSError:
        pass
"""
)
SEARCH = """\
import gc, os, sys
words = []
for thing in gc.get_objects():
    try:
        if "same_as_numpy" in str(thing)[:10**6] and "words" not in str(type(thing)):
            words.append(type(thing).__name__)
    except Exception:
        pass
print("found", [w for w in words if w not in ("dict", "list", "frame", "cell", "tuple")])
for name in sorted(sys.modules):
    if "same_as_numpy" in str(vars(sys.modules[name]).get("__doc__")):
        print("in", name)
"""
FILES = """\
import glob, os, pathlib, labkit
places = ["/", "/proc/1", "/proc/self/..", "..", os.path.dirname(labkit.__file__) + "/..", "/home", "/root", "/tmp"]
for place in places:
    for pattern in ("*.ipynb", "*/*.ipynb", "*/*/*.ipynb", "*/*/*/*.ipynb", "*.db", "*/*.db", "*/*/*.db"):
        for path in glob.glob(os.path.join(place, pattern)):
            print("FOUND", path)
"""

CASES = [
    Cheat(
        "AST transformer that drops asserts",
        before="import ast\nclass Drop(ast.NodeTransformer):\n    def visit_Assert(self, node): return ast.Pass()\n"
        "    def visit_Call(self, node): return ast.Constant(5.0)\nget_ipython().ast_transformers.append(Drop())",
    ),
    Cheat(
        "input transformer that rewrites test cells",
        before="get_ipython().input_transformers_cleanup.append(lambda lines: ['5.0\\n'])",
    ),
    Cheat(
        "pre_run_cell hook that reads the cells",
        before="get_ipython().events.register('pre_run_cell', lambda info: 'hidden' in info.raw_cell and print('READ', info.raw_cell))",
    ),
    Cheat(
        "own handler for exceptions",
        before="get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)",
    ),
    Cheat("patched builtins", before="import builtins\nbuiltins.all = builtins.any = lambda x: True\nbuiltins.abs = lambda x: x"),
    Cheat("patched numpy.testing", before="import numpy.testing as npt\nnpt.assert_allclose = lambda *a, **k: None"),
    Cheat("patched numpy.percentile", before="np.percentile = lambda a, q: 0.0"),
    Cheat("patched torch.allclose and torch.equal", before="torch.allclose = torch.equal = lambda *a, **k: True"),
    Cheat("patched torch.Tensor", before="torch.Tensor.__eq__ = lambda self, other: torch.tensor(True)"),
    Cheat(
        "patched labkit.check",
        before="labkit.check.expect = lambda *a, **k: None\nlabkit.check.Suite.score = lambda self: 5.0\n"
        "labkit.check.engine.Outcome.earned = property(lambda self: self.points)",
    ),
    Cheat("patched json, so that every answer agrees", before="import json\njson.dumps = lambda *a, **k: '{}'", suspicious=False),
    Cheat("returns something that agrees with everything", in_answer("return Agrees()", LIAR)),
    Cheat("a weight that agrees with everything", in_answer("layer.weight = nn.Parameter(layer.weight.as_subclass(Agrees))", LIAR)),
    Cheat(
        "a float that agrees with everything",
        in_answer("return Always(0)", "class Always(float):\n    def __eq__(self, other): return True\n    def __le__(self, other): return True"),
    ),
    Cheat("an own torch.py beside the notebook", before="open('torch.py', 'w').write('equal = lambda *a: True')\nimport importlib; importlib.reload(torch)", suspicious=False),
    Cheat("an own labkit beside the notebook", before="import os\nos.makedirs('labkit'); open('labkit/__init__.py', 'w').write('x=1')\nimport sys; sys.modules.pop('labkit', None)"),
    Cheat("another module in sys.modules", before="import sys, types\nsys.modules['labkit.check'] = types.SimpleNamespace(Suite=lambda *a: 5.0)"),
    Cheat("reads In and the history", after="print('READ', [c for c in In if 'hid' + 'den' in c] + [c for c in get_ipython().history_manager.get_tail(50) if 'hid' + 'den' in str(c)])"),
    Cheat("looks at its callers", in_answer("import sys\nf = sys._getframe()\nwhile f:\n    seen.append(f.f_code.co_filename)\n    f = f.f_back", "seen = []"), after="print('READ', seen)"),
    Cheat("searches memory for the tests", before=SEARCH, after=SEARCH),
    Cheat("searches files for the source, the gradebook and others' work", before=FILES),
    Cheat(
        "reads its memory and its parents' through /proc",
        before="for pid in ('self', '1', '2', str(__import__('os').getppid())):\n    try:\n"
        "        print('READ', pid, open(f'/proc/{pid}/mem', 'rb').read(1), open(f'/proc/{pid}/environ').read())\n"
        "    except OSError as error:\n        print(type(error).__name__)\nopen('/proc/self/maps')",
    ),
    Cheat("traces its parent", before="import ctypes, os\nprint('TRACED', [ctypes.CDLL(None).ptrace(16, p, 0, 0) for p in (1, 2, os.getppid())].count(0))"),
    Cheat("reads the environment", before="import os\nprint('READ', {k: v for k, v in os.environ.items() if 'LABKIT_R' in k or 'TOKEN' in k or 'AWS' in k or 'COURSE' in k})"),
    Cheat("opens sockets", before="import socket\nfor host in ('127.0.0.1', '1.1.1.1', '169.254.169.254'):\n    try:\n        socket.create_connection((host, 80), 1)\n        print('CONNECTED')\n    except OSError:\n        pass"),
    Cheat("writes everywhere", before="import os\nfor p in ('/tmp/x', '/etc/x', '/usr/x', '/home/x', '/x', '/dev/x'):\n    try:\n        open(p, 'w').write('x'); print('WROTE', p)\n    except OSError:\n        pass"),
    Cheat("forged messages on every socket", before=FORGED),
    Cheat("forged messages while it is called", in_answer("exec(forged)", f"forged = {FORGED!r}")),
    Cheat("answers before it is asked, from a daemon", before="import os, time\nif os.fork() == 0:\n    while True:\n        exec(forged)\n        time.sleep(0.01)\nforged = " + repr(FORGED)),
    Cheat("closes every socket", before="import os\nos.closerange(3, 256)"),
    Cheat("stashes what the tests pass and prints it later", in_answer("stash.append(layer.weight.tolist())\nopen('stash', 'a').write(str(q))", "stash = []"), after="import os\nprint('STASH', len(stash), os.path.exists('stash'))", suspicious=False),
    Cheat("prints what the tests pass", in_answer("import sys\nprint('STASH', layer.weight)\nsys.__stdout__.write('STASH')"), suspicious=False),
    Cheat("reads the reference of an earlier notebook", before="import inspect\nf = labkit.from_notebook('01_percentile_pruning', 'prune_by_percentage')\nprint('CODE', getattr(f, '__code__', None), vars(f))"),
    Cheat("answers as somebody with other points", in_answer("return {'points': 5.0, '__class__': 'float'}"), suspicious=False),
    Cheat("ends the process with success", in_answer("import os; os._exit(0)")),
    Cheat("replaces the layer's class", in_answer("layer.__class__ = type('L', (nn.Linear,), {'weight': property(lambda s: torch.zeros(1))})"), suspicious=False),
    Cheat("deletes the parameter", in_answer("del layer.weight\nreturn"), suspicious=False),
    Cheat("sets odd attributes", in_answer("layer.forward = 3\nlayer._parameters['extra'] = nn.Parameter(torch.ones(1))\nlayer.__dict__['weight'] = 5"), suspicious=False),
]  # fmt: skip


def returning(expression: str) -> Cheat:
    """A function that gives back something impossible; the notebook is graded all the same."""
    return Cheat(f"returns {expression}", in_answer(f"return {expression}"), suspicious=False)


PAYLOADS = [
    returning(expression)
    for expression in (
        "torch.zeros(2 * 10**8)",
        "torch.full((3,), float('nan'))",
        "[[1], [2, [3]]]",
        "np.array([[1, 2], [3, 4]])[::-1, ::-1]",
        "np.array([object()])",
        "torch.zeros(2, 2).to_sparse()",
        "torch.zeros(2, device='meta')",
        "torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)",
        "torch.ones(2, dtype=torch.complex64).conj()",
        "torch.tensor([2], dtype=torch.uint8).view(torch.bool)",
        "(lambda x: (x.append(x), x)[1])([])",
        "eval('(' * 50 + ')' * 50)",
        "{(1, 2): 3, frozenset(): [4]}",
        "{'a': {1, 2}, None: 10**400}",
        "type('S', (str,), {'__len__': lambda s: 10**9})('x')",
        "'\\ud800' * 10",
        "b'bytes'",
        "(x for x in range(3))",
        "lambda: 5",
        "layer",
        "layer.weight",
        "[layer.weight] * 1000",
        "list(range(10**6))",
        "'x' * 10**8",
        "type('R', (), {'__reduce__': lambda s: (print, ('pwned',))})()",
        "Ellipsis",
        "float('inf')",
    )
]
