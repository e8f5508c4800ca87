"""A well-behaved child of a worker: events on stdout, an answer in a file, an end when told or orphaned."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

from policies.atomic_files import write_atomically
from policies.contract.worker_api import Completion, Progress, WorkerEvent

PARENT_CHECK_SECONDS = 1.0
ORPHANED = 75
"""Exit status of a child whose worker is gone."""
FOLLOWER_FAILED = 70
"""Exit status of a child that leads several processes, one of which failed."""


class StopRequestedError(BaseException):
    """SIGTERM arrived. No `Exception`, so that nothing on the way out takes it for a failure."""


class EventStream:
    """Writes `WorkerEvent`s, one JSON line each, to what was stdout; all other output goes to stderr from then on."""

    def __init__(self) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def send(self, event: WorkerEvent) -> None:
        self._stream.write(event.model_dump_json() + "\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        self.send(WorkerEvent(type="message", message=text))

    def progress(self, progress: Progress) -> None:
        self.send(WorkerEvent(type="progress", message=f"evaluating: {progress.stage}", progress=progress))


def stop_on_sigterm() -> None:
    """From now on SIGTERM raises `StopRequestedError` in the main thread, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise StopRequestedError

    signal.signal(signal.SIGTERM, stop)


def end_with_parent(worker_pid: int | None) -> None:
    """End this process soon after its worker died, even before this call: an orphan would hold the device."""
    parent = os.getppid() if worker_pid is None else worker_pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def write_completion(folder: Path, completion: Completion) -> None:
    """Leave the answer for the worker; from here on SIGTERM can't undo it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write_atomically(folder / "completion.json", completion.canonical())
