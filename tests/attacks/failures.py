"""Code that fails, by mistake or on purpose: it costs its own cell, named by what happened; nothing stays behind."""

from __future__ import annotations

from tests.attacks.case import GOOD, Case


def answering(body: str) -> str:
    """An answer whose function does this."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import ctypes, os, signal, sys, threading\ndef prune_by_percentage(layer, q=70.0):\n{lines}"


NOTHING = (0.0, 0.0)
SHORT = 2.0  # where nothing in the notebook has to come to an end
ENOUGH = 10.0  # where one cell must be stopped, and the others, of a few hundredths of a second, must not
CRASHED, TIMEOUT, MEMORY, FAILED = (
    ("crashed",) * 2,
    ("timeout",) * 2,
    ("out of memory",) * 2,
    ("failed",) * 2,
)

CASES = [
    Case("endless loop", answering("while True: pass"), points=NOTHING, kinds=TIMEOUT, seconds=SHORT),
    Case(
        "endless loop that ignores signals",
        answering("for s in (2, 15, 1):\n    signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1)"),
        points=NOTHING,
        kinds=TIMEOUT,
        seconds=SHORT,
    ),
    Case("deadlock", answering("lock = threading.Lock()\nlock.acquire()\nlock.acquire()"), points=NOTHING, kinds=TIMEOUT, seconds=SHORT),
    Case("os._exit", answering("os._exit(3)"), points=NOTHING, kinds=CRASHED),
    Case(
        "crashes in the first test cell only",  # at q = 0; the second, in the same place, is graded all the same
        GOOD.replace("    weight =", "    if q == 0: __import__('os')._exit(3)\n    weight =", 1),
        points=(0.0, 5.0),
        kinds=("crashed", "passed"),
    ),
    Case("sys.exit", answering("sys.exit(0)"), points=NOTHING, kinds=FAILED),
    Case("kills itself", answering("os.kill(os.getpid(), 9)"), points=NOTHING, kinds=CRASHED),
    Case("segmentation fault", answering("ctypes.string_at(0)"), points=NOTHING, kinds=CRASHED),
    Case("hoards memory", answering("x = []\nwhile True: x.append(bytearray(10**8))"), points=NOTHING, kinds=MEMORY),
    Case("asks for a terabyte", answering("torch.zeros(10**12)"), points=NOTHING, kinds=MEMORY),
    Case("fork bomb", answering("while True: os.fork()"), points=NOTHING),
    Case(
        "thread bomb",
        answering("while True: threading.Thread(target=time.sleep, args=(1000,)).start()"),
        points=NOTHING,
        kinds=FAILED,
    ),
    Case("kills everything it may", answering("os.kill(-1, 9)"), points=NOTHING),
    Case("kills process 1", answering("os.kill(1, 9)\nos.kill(os.getppid(), 9)"), points=NOTHING),
    Case("asks for input", answering("input('?')"), points=NOTHING, kinds=FAILED),
    Case("raises at every call", answering("raise RuntimeError('half finished')"), points=NOTHING, kinds=FAILED),
    Case("raises while it is defined", "1 / 0\n" + GOOD, points=NOTHING, kinds=("not answered",) * 2),
    Case("a right answer, then an endless loop in its cell", GOOD + "\nwhile True: time.sleep(1)", points=NOTHING, kinds=TIMEOUT, seconds=SHORT),
    Case("no Python", "def prune_by_percentage(layer, q=70.0)\n    pass", points=NOTHING, kinds=("not answered",) * 2),
    Case("imports what is not there", "import tensorflow_probability_x\n" + GOOD, points=NOTHING),
    Case("own endless loop before the answer", before="import time\nwhile True: time.sleep(1)", seconds=ENOUGH),
    Case("own endless loop between the tests", between="while True: time.sleep(1)", seconds=ENOUGH),
    Case("own endless loop at the end", after="while True: time.sleep(1)", seconds=ENOUGH),
    Case("own cell that ends the process", before="import os\nos._exit(0)"),
    Case("own cell that crashes between the tests", between="import ctypes\nctypes.string_at(0)"),
    Case("100 MB of output", before="for i in range(10**6): print('x' * 100)"),
    Case("100 MB written to the terminal below Python", before="import os\nfor i in range(10**3): os.write(1, b'x' * 10**5)"),
    Case("a gigabyte written to disk", before="f = open('big', 'wb')\nfor i in range(1000): f.write(b'0' * 10**6)"),
    Case("a million small files", before="for i in range(10**6): open(f'f{i}', 'w').write('x' * 5000)"),
    Case("a daemon left behind", before="import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(1000)\n    os._exit(0)"),
    Case("daemon threads left behind", before="import threading\nfor i in range(8): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"),
    Case("own input()", before="name = input('Your name? ')"),
    Case("recursion without end", answering("return prune_by_percentage(layer, q)"), points=NOTHING, kinds=FAILED),
]  # fmt: skip
