"""The child process of one attempt, seen from the worker: its own process group, its events, its end.

The child handles what tenants uploaded. It gets no credential, and nothing that it leaves in its folder makes the
worker read another file, wait, or read without end.
"""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import structlog
from pydantic import ValidationError

from policies.contract.worker_api import Completion, CrashSignature, Outcome, Progress, WorkerEvent
from policies.worker.child import FOLLOWER_FAILED, ORPHANED
from policies.worker.crash import CRASH_FILE, Crash, digest_of

logger = structlog.get_logger()

STDERR_TAIL_CHARACTERS = 2000
READ_SECONDS = 5.0
"""How long to wait for the last events once all of the child's group is gone."""
MAX_ANSWER_BYTES = 1 << 20
MAX_CRASH_BYTES = 1 << 10
MAX_LINE_BYTES = 1 << 20
"""A longer line of a child is no event; as long as its size is bounded, so is the worker's memory."""
OURS = ("TUNEGATE_", "CELERY_")
"""Prefixes of the worker's own variables. A child needs none but `PASSED_ON`: its assignment says all else."""
PASSED_ON = ("TUNEGATE_DTYPE",)
UNSIGNED = frozenset({1, FOLLOWER_FAILED, ORPHANED})
"""Exit codes that say nothing of the next attempt: another process ended, or an exception left no signature because a
package can't be imported on this machine, or its disk is full."""


class UnreadableError(OSError):
    """The child left no plain file of a sensible size."""


def threads_for(n_threads: int) -> dict[str, str]:
    """Variables for a child that computes with so many threads."""
    return {
        "OMP_NUM_THREADS": str(n_threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads starve the other worker of this machine
        "TOKENIZERS_PARALLELISM": "false",
    }


class ChildProcess:
    """`python -m module folder` in a session of its own, so that it can be killed with all it started."""

    def __init__(self, module: str, folder: Path, *, environment: Mapping[str, str], user: str | None = None) -> None:
        self._folder = folder
        account = pwd.getpwnam(user) if user is not None else None
        if account is not None:
            _hand_over(folder, account)
        self._errors = (folder / "stderr.log").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env={
                **{name: value for name, value in os.environ.items() if is_passed_on(name)},
                **({"HOME": account.pw_dir} if account is not None else {}),
                **environment,
            },
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
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
            return Completion.model_validate_json(_read_left(self._folder / "completion.json", MAX_ANSWER_BYTES))
        except FileNotFoundError:
            reason = self._how_it_ended()
        except (ValidationError, OSError) as error:
            logger.warning("the child's answer can't be read", pid=self.pid, error=str(error))
            reason = "its answer can't be read"
        return Completion(
            outcome=Outcome.CRASHED,
            error_code="worker_crashed",
            error_message=reason,
            crash_signature=self._crash_signature(reason),
        )

    def _crash_signature(self, reason: str) -> CrashSignature | None:
        """What the child left, or how it ended; a signal comes from outside and says nothing."""
        if self._process.returncode < 0:
            return None
        try:
            return Crash.model_validate_json(_read_left(self._folder / CRASH_FILE, MAX_CRASH_BYTES)).signature
        except FileNotFoundError:
            return None if self._process.returncode in UNSIGNED else digest_of(reason)
        except (ValidationError, OSError):
            return None

    def left(self, name: str, at_most_bytes: int) -> bytes:
        """A file that the child left in its folder.

        Raises:
            OSError: there is none, or no plain one of that size.
        """
        return _read_left(self._folder / name, at_most_bytes)

    def close(self) -> None:
        """Leave nothing behind: the group is killed if anything of it still runs."""
        self.kill()
        self._errors.close()

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the process ended with {how}"

    def last_words(self) -> str:
        """The end of what it wrote to stderr, for the log and never for tenants.

        From the file that was opened for it, whatever stands in its place by now.
        """
        size = os.fstat(self._errors.fileno()).st_size
        start = max(0, size - STDERR_TAIL_CHARACTERS)
        return os.pread(self._errors.fileno(), STDERR_TAIL_CHARACTERS, start).decode(errors="replace").strip()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # the whole group is gone, which is what was wanted

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            is_rest = False
            while line := stream.readline(MAX_LINE_BYTES):
                is_whole = line.endswith(b"\n")
                if is_whole and not is_rest:
                    self._keep(line)
                is_rest = not is_whole

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


def is_passed_on(name: str) -> bool:
    """Whether a child gets the worker's variable of this name."""
    return name in PASSED_ON or not name.startswith(OURS)


def _hand_over(folder: Path, account: pwd.struct_passwd) -> None:
    """Let the child's user write in its folder and read what lies there."""
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)


def _read_left(path: Path, at_most: int) -> bytes:
    """A file of the child: no link to what only the worker can read, no pipe that nobody fills, no endless one."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size > at_most:
            raise UnreadableError(f"{path.name} is not a plain file of at most {at_most} bytes")
        return stream.read(at_most)
