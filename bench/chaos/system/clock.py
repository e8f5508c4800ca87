"""A time of day that jumps in processes that run: a small library, compiled here and preloaded into them."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path


class JumpingClock:
    """Of every process that is started with `variables`; without a C compiler there is none."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "clock"
        self._library = folder / "jumping_clock.so"
        self.set(0)
        compiler, source = shutil.which("cc"), str(files("bench.chaos.system") / "jumping_clock.c")
        self.can_jump = compiler is not None
        if compiler is not None:
            subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True)

    @property
    def variables(self) -> dict[str, str]:
        if not self.can_jump:
            return {}
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._offset)}

    def set(self, offset_seconds: int) -> None:
        """From now on; written in place, because the processes have the file mapped."""
        self._offset.touch()
        with self._offset.open("r+b") as stream:
            stream.write(offset_seconds.to_bytes(8, "little", signed=True))
