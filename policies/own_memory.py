"""Keeps the credentials of a process to itself: out of its environment, and its memory from other processes."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_DUMPABLE = 4


def refuse_readers() -> None:
    """From now on no other process of this user can read this one's memory or first environment, or attach to it.

    Children that are forked inherit it, programs that are executed do not. It also turns core dumps off. Root is kept
    out where it lacks CAP_SYS_PTRACE, as it does in containers. Linux only; elsewhere give the child another user.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def forget_variables(*names: str) -> None:
    """Remove variables from the environment, and their values from where the system shows it (`/proc/PID/environ`)."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in names:
        value = libc.getenv(name.encode())
        if value:
            ctypes.memset(value, 0, len(ctypes.string_at(value)))
        os.environ.pop(name, None)
