"""A bench's child that works until it is told to end: `python -m tests.trainer.qualification.waiting_child FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "started").touch()
    until = time.monotonic() + 60
    while not (folder / "end").exists() and time.monotonic() < until:
        time.sleep(0.02)
