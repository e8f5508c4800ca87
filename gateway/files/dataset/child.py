"""Reads training files in a process of its own: `python -m gateway.files.dataset.child CPU WALL MEMORY FD…`.

An `InspectionTask` comes in on standard input and the files on the descriptors; an `InspectionAnswer` goes out on
standard output. Limits are set before anything of a tenant's is looked at, and hold if the parent is gone.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from contextlib import ExitStack

OUT_OF_MEMORY = 77
"""Exit code where the memory limit was met."""
CRASHED = 70
"""Exit code where the last line of the log begins with `SIGNED` and holds the crash's signature, if it has one."""
SIGNED = "crash signature: "
MAX_OPEN_FILES = 64
NICENESS = 10
BUFFER_BYTES = 1 << 20


def limit(*, cpu_seconds: int, wall_seconds: int, memory_bytes: int) -> None:
    """From now on the kernel ends this process where it takes more."""
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.alarm(wall_seconds)
    os.nice(NICENESS)


def main(arguments: list[str]) -> int:
    cpu_seconds, wall_seconds, memory_bytes, *descriptors = map(int, arguments)
    limit(cpu_seconds=cpu_seconds, wall_seconds=wall_seconds, memory_bytes=memory_bytes)
    try:
        from gateway.files.dataset.inspection import InspectionTask, inspect

        task = InspectionTask.model_validate_json(sys.stdin.buffer.read())
        with ExitStack() as stack:
            streams = [stack.enter_context(open(descriptor, "rb", BUFFER_BYTES)) for descriptor in descriptors]
            answer = inspect(task, streams)
        sys.stdout.buffer.write(answer.canonical())
    except MemoryError:
        return OUT_OF_MEMORY
    except Exception as error:
        from policies.worker.crash import signature_of

        traceback.print_exc()
        print(f"{SIGNED}{signature_of(error) or ''}", file=sys.stderr)
        return CRASHED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
