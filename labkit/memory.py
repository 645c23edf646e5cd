"""Keep the memory of one training step for the next.

glibc hands freed memory back to the system early, and a training step frees and asks for hundreds of
megabytes: the kernel then clears 100 MB of fresh pages in every step, a fifth of its time on a CPU.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

MiB = 2**20
# option numbers of mallopt(3) and of madvise(2)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, MADV_HUGEPAGE = -1, -3, -4, 14


@cache
def keep_freed_memory() -> bool:
    """Have this process keep up to 1 GiB of freed memory, in huge pages where Linux has them.

    Takes effect once, and only with glibc on Linux; returns whether it did. Nothing is used up: the
    system gives pages when they are first written to.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # a batch of 256 has no activation above 16 MiB; what is larger may go back as it did
    kept = libc.mallopt(M_MMAP_THRESHOLD, 20 * MiB) and libc.mallopt(M_TRIM_THRESHOLD, 1024 * MiB)
    if kept:
        _use_huge_pages(libc, 768 * MiB)
    return bool(kept)


def _use_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Mark the `size` bytes that the heap grows by next: 2 MiB a page, so that far fewer are looked up."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(M_MMAP_MAX, 0)  # in the heap, not in a mapping of its own
    start = libc.malloc(size)
    libc.mallopt(M_MMAP_MAX, 65536)  # glibc's default
    if start is None:  # a tight limit on memory: then without
        return
    first = -(-start // (2 * MiB)) * 2 * MiB
    libc.madvise(first, start + size - first, MADV_HUGEPAGE)
    libc.free(start)
