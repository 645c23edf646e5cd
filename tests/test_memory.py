from __future__ import annotations

import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from labkit.memory import keep_freed_memory

FAULTS = """
    import os, resource, sys
    sys.path.insert(0, {repository!r})
    import torch
    from labkit.memory import keep_freed_memory

    def step():
        blocks = [torch.ones(2 * 2**20) for _ in range(20)]  # 8 MiB each

    for keep in (True, False):
        if os.fork() == 0:  # the settings are a process's
            if keep:
                assert keep_freed_memory()
            step()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(5):
                step()
            print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
            os._exit(0)
        os.wait()
"""

glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is the matter")


@glibc_only
@pytest.mark.slow
def test_freed_memory_is_used_again_instead_of_new_pages(repository: Path) -> None:
    code = textwrap.dedent(FAULTS.format(repository=str(repository)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, handed_back = map(int, done.stdout.split())
    # 5 steps of 160 MiB are 204,800 pages of 4 KiB if each step asks for new ones, or 400 of 2 MiB
    assert 10 * kept < handed_back


@glibc_only
@pytest.mark.slow
def test_a_tight_memory_limit_is_no_error(repository: Path) -> None:
    code = f"""
        import resource, sys
        sys.path.insert(0, {str(repository)!r})
        from labkit.memory import keep_freed_memory
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
        print(keep_freed_memory())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert keep_freed_memory.__wrapped__() is False
