"""Runs that belong together: each in a folder and a child process of its own, never again once that holds a result.

The child reads `assignment.json` in the folder and leaves `result.json` or `failure.json`. A result names the digest of
everything that its figures depend on; a failed run is tried again, as its cause may be gone. Several may share a
folder of runs, but only one at a time works on a run.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeVar

from pydantic import ValidationError

from evaluator.models.allocator import keep_freed_memory
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, Record
from policies.errors import IntegrityError, TunegateError, WorkerError
from policies.worker.child import end_with_parent

CRASHED = "crashed"
"""What a run's process that ended without an answer is said to have done."""

Launch = Callable[[Path], None]
"""Works on a run's folder until it holds a result or a failure."""


class Outcome(Record):
    """What a run found."""

    run: Digest


class RunFailure(Record):
    """Why a run has no figures."""

    code: str
    message: str


OutcomeT = TypeVar("OutcomeT", bound=Outcome)
RunT = TypeVar("RunT")


def finished(folder: Path, run: Digest, kind: type[OutcomeT]) -> OutcomeT | None:
    """The result that the folder holds, or None.

    Raises:
        IntegrityError: it is the result of another run, or of another kind.
    """
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result = kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise IntegrityError(f"{path} is no result that can be read; remove the folder") from error
    if result.run != run:
        raise IntegrityError(f"{path} is the result of another run; remove the folder")
    return result


def execute(
    folder: Path, assignment: Record, *, run: Digest, kind: type[OutcomeT], launch: Launch
) -> OutcomeT | RunFailure:
    """The run's result, from its folder or else from new work.

    Raises:
        IntegrityError: the folder holds the result of another run.
        WorkerError: another process works in the folder, or the work ended without an answer.
    """
    known = finished(folder, run, kind)
    if known is not None:
        return known
    with alone_in(folder):
        known = finished(folder, run, kind)  # another process may have finished it since
        if known is not None:
            return known
        failure = folder / "failure.json"
        failure.unlink(missing_ok=True)
        write_atomically(folder / "assignment.json", assignment.canonical())
        launch(folder)
        result = finished(folder, run, kind)
        if result is not None:
            return result
        if not failure.is_file():
            raise WorkerError(f"the run in {folder} ended without an answer")
        return RunFailure.model_validate_json(failure.read_bytes())


def work_off(
    runs: Sequence[RunT], work: Callable[[RunT], None], may_begin: Callable[[RunT], bool], *, jobs: int
) -> tuple[RunT, ...]:
    """Work on the runs in order, so many at a time, until one may not begin; gives those that were not begun.

    `work` is called in threads, and spends its time waiting for a run's process; `may_begin` is called for one run at a
    time.

    Raises:
        Exception: what `work` raised, when those that had begun have ended.
    """
    waiting, alone = deque(runs), Lock()

    def go_on() -> None:
        while True:
            with alone:
                if not waiting or not may_begin(waiting[0]):
                    return
                run = waiting.popleft()
            try:
                work(run)
            except BaseException:
                waiting.clear()  # what the others would find out is not wanted any more
                raise

    with ThreadPoolExecutor(jobs) as pool:
        for ended in [pool.submit(go_on) for _ in range(jobs)]:
            ended.result()
    return tuple(waiting)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep others out of a run's folder, which is created; the system ends this with the last process in it.

    Raises:
        WorkerError: somebody is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "in_use.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkerError(
                f"another process is working in {folder}; wait until it has ended, or choose another results folder"
            ) from None
        os.set_inheritable(stream.fileno(), True)  # a child outlives a killed parent for a moment, and must hold it too
        yield


def launch_module(module: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run `python -m module folder`, output to `log.txt`; a crash becomes a failure. `environment` is added to ours."""
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", module, str(folder)]
        whole = os.environ | environment
        # the child inherits the lock on its folder; Python marks all other files as not inheritable
        status = subprocess.run(command, stdout=log, stderr=log, env=whole, close_fds=False, check=False).returncode
    if status != 0:
        lines = (folder / "log.txt").read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        write_failure(folder, RunFailure(code=CRASHED, message=f"exit status {status}: {last.strip()}"))


def run_child(work_on: Callable[[Path], None]) -> None:
    """The main of a module that `launch_module` runs; it ends with the process that started it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder = Path(sys.argv[1])
    end_with_parent(json.loads((folder / "assignment.json").read_bytes())["parent_pid"])
    keep_freed_memory()
    gc.disable()  # a third of the time of this import would go into looking for garbage
    importlib.import_module("trainer.recipe")  # torch and most else that any run needs
    gc.freeze()
    gc.enable()
    work_on(folder)


def write_failure(folder: Path, failure: RunFailure) -> None:
    write_atomically(folder / "failure.json", failure.canonical())


def write_answer(folder: Path, work: Callable[[], Outcome]) -> None:
    """Do the work in this process. Errors of the tree are its answer; any other exception is a crash."""
    try:
        result = work()
    except TunegateError as error:
        write_failure(folder, RunFailure(code=error.code, message=str(error)))
    else:
        write_atomically(folder / "result.json", result.canonical())


def peak_memory_bytes() -> int:
    """Of this process so far: of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    # the kernel hands the peak of the parent down, which is small as it never loads torch
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
