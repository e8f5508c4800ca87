"""Starts a reader of training files that the kernel limits, feeds it the files, and ends it.

The child is given the bytes, its limits, and nothing of this process's environment: no database, no credential. Reading
a file may take long or fail in any way there; here it is an answer, or an error of `errors.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import IO, NamedTuple

from gateway.files.dataset.child import CRASHED, OUT_OF_MEMORY, SIGNED
from gateway.files.dataset.errors import InspectionCrashed, InspectionGivenUp, InspectionTooLarge, InspectionTooSlow
from gateway.files.dataset.inspection import InspectionAnswer, InspectionTask
from policies.contract.artifacts import CHUNK_BYTES

WALL_FACTOR = 5
"""Wall-clock limit over processor time: a busy machine is not the file's fault."""
LOG_TAIL = 2000

Source = Callable[[], AbstractContextManager[IO[bytes]]]
"""Opens a file; raises, on opening or while reading, where its bytes are not to be had."""
GoOn = Callable[[], bool]


class ChildLimits(NamedTuple):
    """What one inspection may take."""

    cpu_seconds: int
    memory_bytes: int
    """Of address space."""
    look_seconds: float = 5.0
    """How often the caller is asked whether to go on."""

    @property
    def wall_seconds(self) -> int:
        return WALL_FACTOR * self.cpu_seconds


def inspect_in_child(
    task: InspectionTask, sources: Sequence[Source], *, limits: ChildLimits, go_on: GoOn = lambda: True
) -> InspectionAnswer:
    """Inspect the files in a process of their own.

    Args:
        sources: what the base model reads text by, if the task names one, and as many files as it has limits.
        go_on: asked every few seconds; the child is killed where it says no, or raises.

    Raises:
        InspectionError: whatever kept the child from an answer. What a source or `go_on` raises comes through.
    """
    with _pipes(len(sources)) as pipes, _started(limits, [read for read, _ in pipes]) as child:
        for read, _ in pipes:
            os.close(read)
        with ThreadPoolExecutor(1, "feed") as pool:
            feeding = pool.submit(_feed, sources, [write for _, write in pipes])
            try:
                output = _output(child, task, limits=limits, go_on=go_on, feeding=feeding)
            finally:
                child.kill()
        feeding.result()
    return InspectionAnswer.model_validate_json(output)


@contextlib.contextmanager
def _pipes(count: int) -> Iterator[list[tuple[int, int]]]:
    """Ends for reading and for writing; whoever uses an end closes it."""
    yield [os.pipe() for _ in range(count)]


@contextlib.contextmanager
def _started(limits: ChildLimits, descriptors: Sequence[int]) -> Iterator[subprocess.Popen[bytes]]:
    numbers = (limits.cpu_seconds, limits.wall_seconds, limits.memory_bytes, *descriptors)
    command = [sys.executable, "-m", "gateway.files.dataset.child", *map(str, numbers)]
    pipe = subprocess.PIPE
    # same group, so that what ends a worker with its group ends its children
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=descriptors, env=_environment()
    ) as child:
        yield child


def _environment() -> dict[str, str]:
    """Only where Python finds its modules, and one thread for each library."""
    path = os.pathsep.join(filter(None, sys.path))
    return {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "LC_ALL": "C.UTF-8"}


def _feed(sources: Sequence[Source], descriptors: Sequence[int]) -> None:
    """Write each file into its pipe; a child that reads no further has said why."""
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(contextlib.closing(_Pipe(descriptor))) for descriptor in descriptors]
        for source, pipe in zip(sources, pipes, strict=True):
            with source() as stream:
                while piece := stream.read(CHUNK_BYTES):
                    if not pipe.write(piece):
                        return
            pipe.close()


class _Pipe:
    """The writing end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        with contextlib.suppress(OSError, AttributeError):  # Linux only, and limited there; the default works too
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)

    def write(self, piece: bytes) -> bool:
        """Whether somebody still reads."""
        assert self._descriptor is not None
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError:
            return False
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _output(
    child: subprocess.Popen[bytes], task: InspectionTask, *, limits: ChildLimits, go_on: GoOn, feeding: Future[None]
) -> bytes:
    deadline = time.monotonic() + limits.wall_seconds
    content: bytes | None = task.canonical()
    while True:
        try:
            output, log = child.communicate(content, timeout=limits.look_seconds)
        except subprocess.TimeoutExpired:
            content = None  # it was sent with the first call
        else:
            return _answered(child.returncode, output, log, limits=limits)
        if feeding.done():
            feeding.result()
        if time.monotonic() > deadline:
            raise InspectionCrashed(f"The files were not validated within {limits.wall_seconds} s.")
        if not go_on():
            raise InspectionGivenUp("The validation is no longer wanted.")


def _answered(code: int, output: bytes, log: bytes, *, limits: ChildLimits) -> bytes:
    if code == 0:
        return output
    if code == -signal.SIGXCPU:
        raise InspectionTooSlow(
            f"The file takes more than {limits.cpu_seconds} s of processor time to validate; split it into several."
        )
    if code == OUT_OF_MEMORY:
        raise InspectionTooLarge(
            f"The file takes more than {limits.memory_bytes >> 20} MiB of memory to validate; split it, or shorten its "
            "rows."
        )
    told = log[-LOG_TAIL:].decode(errors="replace")
    signed = re.search(rf"{SIGNED}([0-9a-f]{{64}})\n\Z", told) if code == CRASHED else None
    raise InspectionCrashed(f"The validation ended with exit code {code}: {told}", signed and signed[1])
