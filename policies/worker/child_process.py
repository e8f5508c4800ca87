"""The child process of one attempt, seen from the worker: its own process group, its events, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import structlog
from pydantic import ValidationError

from policies.contract.worker_api import Completion, Outcome, Progress, WorkerEvent

logger = structlog.get_logger()

STDERR_TAIL_CHARACTERS = 2000
READ_SECONDS = 5.0
"""How long to wait for the last events once all of the child's group is gone."""
WITHHELD = ("TUNEGATE_WORKER_TOKEN", "TUNEGATE_BROKER_URL", "TUNEGATE_DATABASE_URL")
"""Variables that a child, which handles what tenants uploaded, has no need of."""


class ChildProcess:
    """`python -m module folder` in a session of its own, so that it can be killed with all it started."""

    def __init__(self, module: str, folder: Path, *, threads: int, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._errors = (folder / "stderr.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env={
                **{name: value for name, value in os.environ.items() if name not in WITHHELD},
                **environment,
                "OMP_NUM_THREADS": str(threads),
                "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads starve the other worker of this machine
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        assert self._process.stdout is not None
        self._lock = threading.Lock()
        self._events: deque[WorkerEvent] = deque()
        self._progress: Progress | None = None
        self._is_gone = False
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def progress(self) -> Progress | None:
        """The latest progress that the child told."""
        return self._progress

    def take_events(self, limit: int) -> list[WorkerEvent]:
        """Up to `limit` events that were not taken yet, oldest first."""
        with self._lock:
            return [self._events.popleft() for _ in range(min(limit, len(self._events)))]

    def put_back(self, events: list[WorkerEvent]) -> None:
        """Return events that could not be passed on."""
        with self._lock:
            self._events.extendleft(reversed(events))

    def has_ended(self, *, within_seconds: float) -> bool:
        """Wait that long for the end; once it came, all events were read."""
        try:
            self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            return False
        self.kill()
        return True

    def ask_to_stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole group now, wait until the child is gone and read what it still said."""
        if self._is_gone:
            return  # its process id may be another process's by now
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._is_gone = True
        self._reader.join(READ_SECONDS)
        if self._reader.is_alive():
            logger.warning("something that left the child's group keeps its output open", pid=self.pid)

    def completion(self) -> Completion:
        """The child's answer, or CRASHED with how it ended."""
        try:
            return Completion.model_validate_json((self._folder / "completion.json").read_bytes())
        except FileNotFoundError:
            reason = self._how_it_ended()
        except ValidationError as error:
            reason = f"its answer can't be read: {error}"
        return Completion(outcome=Outcome.CRASHED, error_code="worker_crashed", error_message=reason)

    def close(self) -> None:
        """Leave nothing behind: the group is killed if anything of it still runs."""
        self.kill()
        self._errors.close()

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        tail = (self._folder / "stderr.log").read_text(errors="replace")[-STDERR_TAIL_CHARACTERS:].strip()
        return f"the process ended with {how}" + (f"; its last words: {tail}" if tail else "")

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # the whole group is gone, which is what was wanted

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._keep(line)

    def _keep(self, line: bytes) -> None:
        try:
            event = WorkerEvent.model_validate_json(line)
        except ValidationError:
            logger.warning("child wrote a line that is not an event", line=line[:500].decode(errors="replace"))
            return
        with self._lock:
            self._progress = event.progress or self._progress
            if event.type != "progress":
                self._events.append(event)
