"""Python runs this file at its start where its folder is on PYTHONPATH: it notes every pickle that is read.

A line in $UNPICKLED_LOG for each use of `pickle`'s readers, for each class or function that an unpickler looks up, and
for each file that is opened for reading and is a pickle by its first bytes, or might be one by its name. Child
processes inherit it.
"""

from __future__ import annotations

import io
import os
import pickle
import stat
import sys
import threading
import traceback
from typing import Any

LOG = os.environ["UNPICKLED_LOG"]
SUFFIXES = tuple(os.environ["PICKLE_SUFFIXES"].split())
BEGINNING_BYTES = 256
_inside = threading.local()


def note(what: str) -> None:
    """Appends `what` and who did it."""
    frames = traceback.extract_stack()[:-3]
    by = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames[-6:]))
    with open(LOG, "a") as stream:
        stream.write(f"{what} by {by}\n")


def is_pickle(path: str) -> bool:
    """Whether a file is called like a pickle or begins like one: protocol 2 to 5, torch's archive, an object array."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as stream:
            beginning = stream.read(BEGINNING_BYTES)
    except OSError:
        return False
    if path.lower().endswith(SUFFIXES):
        return True
    by_protocol = len(beginning) > 1 and beginning[0] == 0x80 and 2 <= beginning[1] <= 5
    of_torch = beginning.startswith(b"PK\x03\x04") and b"data.pkl" in beginning
    return by_protocol or of_torch or (beginning.startswith(b"\x93NUMPY") and b"|O" in beginning)


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("pickle.find_class", "open") or getattr(_inside, "busy", False):
        return
    _inside.busy = True
    try:
        if event == "pickle.find_class":
            note(f"looked up {arguments[0]}.{arguments[1]}")
            return
        path, _, flags = arguments
        reads = isinstance(flags, int) and flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR)
        if reads and isinstance(path, str | bytes | os.PathLike) and is_pickle(os.fsdecode(path)):
            note(f"opened {os.fsdecode(path)}")
    finally:
        _inside.busy = False


class NotingUnpickler(pickle.Unpickler):
    """What `pickle.Unpickler` is from here on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # Any: as the original takes them
        note("unpickled a stream")
        super().__init__(*arguments, **options)


def load(stream: Any, **options: Any) -> Any:  # Any: see above
    return NotingUnpickler(stream, **options).load()


def loads(content: Any, /, **options: Any) -> Any:  # Any: see above
    return NotingUnpickler(io.BytesIO(content), **options).load()


sys.addaudithook(watch)
for name, noting in (("Unpickler", NotingUnpickler), ("load", load), ("loads", loads)):
    setattr(pickle, name, noting)  # audit events come with classes only
