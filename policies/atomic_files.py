"""Files that other processes see either whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that other processes see either whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as (stream, keep):
        stream.write(content)
        keep()


@contextmanager
def new_file(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """A stream, and a function that puts what was written to it in the place of `path`.

    If it is not called, nothing is left.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")

    def keep() -> None:
        stream.flush()
        os.replace(name, path)

    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream, keep
    finally:
        Path(name).unlink(missing_ok=True)
