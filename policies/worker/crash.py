"""Tells one crash from another, so that a failure which comes again is not tried once more.

A signature is a digest of where an exception came from: its type and the innermost line of our own code, or how the
process ended. It holds no text of the exception, which may quote a tenant or name a file of the machine.

What comes from outside the process (the system, the network, the other processes of a run, a signal) has no signature:
it may be gone at the next attempt, however often it looked the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

from policies.atomic_files import write_atomically
from policies.contract.artifacts import Record
from policies.contract.worker_api import CrashSignature, Progress, Work

CRASH_FILE = "crash.json"
OURS = frozenset({"policies", "trainer", "evaluator", "gateway", "__main__"})
OUTSIDE = (OSError, EOFError, MemoryError)
"""Errors of the system: files, connections, time limits, memory that others may have taken."""
CLIENTS = frozenset(
    {"aiobotocore", "aiohttp", "botocore", "httpcore", "httpx", "huggingface_hub", "requests", "s3fs", "urllib3"}
)
"""Packages that speak with other machines; some of their errors are no `OSError`."""
PEERS, DEVICE = "torch.distributed", "torch.AcceleratorError"
"""Other processes of the run, and an accelerator that failed. One that is out of memory did not: the batch is as large
the next time."""
MAX_CHAIN = 100


class Crash(Record):
    """What a child that crashed leaves in its folder."""

    signature: CrashSignature | None
    """None: nothing says that it would crash again."""


@contextmanager
def signed_crashes(folder: Path) -> Iterator[None]:
    """What the block raises passes, and its signature is left for the worker."""
    try:
        yield
    except Exception as error:
        write_atomically(folder / CRASH_FILE, Crash(signature=signature_of(error)).canonical())
        raise


def signature_of(error: Exception) -> CrashSignature | None:
    """Names the type of an exception and the innermost line of ours that it passed; None for what came from outside."""
    if any(_is_from_outside(part) for part in _chain(error)):
        return None
    places = [
        f"{module}.{frame.f_code.co_qualname}:{line}"
        for frame, line in walk_tb(error.__traceback__)
        if (module := str(frame.f_globals.get("__name__"))).partition(".")[0] in OURS
    ]
    return digest_of(type(error).__module__, type(error).__qualname__, *places[-1:])


def digest_of(*parts: str) -> CrashSignature:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def point_reached(work: Work, progress: Progress | None) -> str:
    """How far an attempt was, in words that are the same whenever it comes there again.

    A training counts its steps. How much of a probe is done depends on what caches knew, so there its name counts.
    """
    if work.kind == "train":
        begun_at = 0 if work.resume_from is None else work.resume_from.step
        return f"train {begun_at if progress is None else progress.step}"
    return f"{work.kind} {'' if progress is None else progress.stage}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, those that led to it and those that it holds."""
    left, seen = [error], set[int]()
    while left and len(seen) < MAX_CHAIN:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        left += [led for led in (part.__cause__, part.__context__) if led is not None]
        left += part.exceptions if isinstance(part, BaseExceptionGroup) else ()


def _is_from_outside(error: BaseException) -> bool:
    module = type(error).__module__
    if isinstance(error, OUTSIDE) or module.partition(".")[0] in CLIENTS or module.startswith(PEERS):
        return True
    return f"{module}.{type(error).__qualname__}" == DEVICE
