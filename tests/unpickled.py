"""A watch on the pickles that other processes read."""

from __future__ import annotations

import os
from pathlib import Path

from policies.pickle_files import PICKLE_SUFFIXES

WATCH = Path(__file__).parent / "unpickling"


class Unpickled:
    """A process with `environment`, and every one that it starts, notes each pickle that it reads in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "unpickled.log"
        self._log.touch()
        paths = [str(WATCH), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            "PYTHONPATH": os.pathsep.join(paths),
            "UNPICKLED_LOG": str(self._log),
            "PICKLE_SUFFIXES": " ".join(sorted(PICKLE_SUFFIXES)),
        }

    def noted(self) -> list[str]:
        return self._log.read_text().splitlines()
