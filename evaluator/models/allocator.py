"""Stops the C library from giving large buffers back to the system after every use.

A matrix product on a CPU takes and frees scratch buffers of tens of megabytes; by default glibc maps and unmaps each,
and the page faults cost as much time as the arithmetic (7 s beside 9 s in a run of batched generation, 0.2 s without).
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
NEVER = -1
TOP_PAD_BYTES = 64 << 20
LARGE_BYTES = 4 << 20
MANY = 65536
"""Buffers; glibc's own limit."""


def keep_freed_memory() -> None:
    """Keep freed memory for the next buffer, in a process that ends with its job. Does nothing without glibc."""
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: TOP_PAD_BYTES})


def give_back_large_buffers() -> None:
    """Give buffers of `LARGE_BYTES` and more back again, where long rows are trained.

    An aligned buffer asks for a few bytes more than one of its size that was freed has, so the space of a layer's
    temporaries is rarely used again: the C library comes to hold up to twice what is in use, at a fifth less time.
    """
    _set({M_MMAP_MAX: MANY, M_MMAP_THRESHOLD: LARGE_BYTES})


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)


def return_freed_memory() -> None:
    """Give back what is free now, after work that will not come again. Does nothing without glibc."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if malloc_trim is not None:
        malloc_trim(0)
