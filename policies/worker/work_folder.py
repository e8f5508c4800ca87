"""Scratch folders of attempts: held by a lock while their worker lives, so what a killed one left can be told apart.

A lock says so in every process and container of a machine, where process ids may mean another process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "tunegate-attempt-"
HELD = ".held"


@contextmanager
def attempt_folder(work_dir: Path) -> Iterator[Path]:
    """A fresh folder in `work_dir`, which is gone afterwards."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work_dir, prefix=PREFIX) as name, Path(name, HELD).open("wb", 0) as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.write(b"held\n")  # until then nobody takes the folder for abandoned
        yield Path(name)


def remove_abandoned(work_dir: Path) -> None:
    """Remove the scratch folders of workers that were killed; a training's can be as large as its checkpoints."""
    for folder in work_dir.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # held by a worker that lives, just being made, or just gone
            mark = os.open(folder / HELD, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(mark):
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(mark).st_size > 0:
                    shutil.rmtree(folder)
