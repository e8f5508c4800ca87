"""Stops the C library from giving large buffers back to the system after every use.

A matrix product on a CPU takes and frees scratch buffers of tens of megabytes; by default glibc maps and unmaps each,
and the page faults cost as much time as the arithmetic (7 s beside 9 s in a run of batched generation, 0.2 s without).
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> None:
    """Keep freed memory for the next buffer, in a process that ends with its job. Does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, TOP_PAD_BYTES)


def return_freed_memory() -> None:
    """Give back what is free now, after work that will not come again. Does nothing without glibc."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if malloc_trim is not None:
        malloc_trim(0)
