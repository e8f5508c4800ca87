"""The processes of an embedded stack: started in sessions of their own, watched, and ended without remainder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from policies.errors import TunegateError
from policies.offline import NO_TELEMETRY


def interrupt_on_signals() -> None:
    """From now on SIGTERM and SIGINT end this process as Ctrl-C does, so that a stack is stopped on the way out.

    SIGINT is named because a shell starts background jobs with it ignored, and Python leaves it so.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


class StackError(TunegateError, RuntimeError):
    """A part of the embedded stack did not start, or ended by itself."""

    code = "stack_failed"


class Part:
    """One process with its log."""

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if not name.startswith("TUNEGATE_")}
                | NO_TELEMETRY
                | dict(environment),
                start_new_session=True,
                umask=0o077,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def ask_to_end(self) -> None:
        if self.is_running:
            self._process.terminate()

    def end(self, *, by: float) -> None:
        """Wait until the monotonic time `by`, then kill the whole group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, by - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def require_running(self) -> None:
        if not self.is_running:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise StackError(f"{self.name} ended with exit code {self._process.returncode}; its log ends:\n{tail}")


class Reaper:
    """Kills the parts when this very process is killed and can't do so itself."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway.embedded.reaper"], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def watch(self, part: Part) -> None:
        self._tell(f"+{part.pid}\n")

    def forget(self, part: Part) -> None:
        self._tell(f"-{part.pid}\n")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
