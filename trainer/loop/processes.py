"""Several processes train one adapter, a GPU each: the job's own child leads, and starts the others on this machine.

All run the same recipe on the same files; accelerate deals out the rows and averages the gradients. The leader alone
speaks: it reports, stores and answers. A follower that fails ends the leader, a leader that ends takes them all along.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policies.errors import IntegrityError
from policies.worker.child import FOLLOWER_FAILED

GRACE_SECONDS = 20.0


def process_count(batch_size: int, *, at_most: int) -> int:
    """As many processes as divide a batch evenly."""
    return max(count for count in range(1, at_most + 1) if batch_size % count == 0)


def rows_of_a_batch(batch_size: int) -> int:
    """This process's rows of every batch.

    Raises:
        IntegrityError: the processes can't share a batch evenly, as they were counted to.
    """
    if batch_size % world_size():
        raise IntegrityError(
            f"{world_size()} processes can't share batches of {batch_size} rows evenly: the training file has other "
            "rows than were counted; train again"
        )
    return batch_size // world_size()


def rank() -> int:
    """0 in the leader, and where a process trains alone."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def results_folder(folder: Path) -> Path:
    """Where this process leaves its adapter: followers have the same, and keep it out of the leader's way."""
    return folder if rank() == 0 else folder / f"process-{rank()}"


@contextmanager
def followers(folder: Path, count: int) -> Iterator[None]:
    """`count` − 1 further processes of the run in `folder` for the time of the block; this one becomes rank 0."""
    if count == 1:
        yield
        return
    os.environ |= _environment(0, count, _free_port())
    started = [_start(folder, number) for number in range(1, count)]
    is_over = threading.Event()
    for process in started:
        threading.Thread(target=_end_with, args=(process, is_over), daemon=True).start()
    try:
        yield
        is_over.set()
        for process in started:
            process.wait()
    finally:
        is_over.set()
        for process in started:
            process.kill()


def _start(folder: Path, number: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"RANK": str(number), "LOCAL_RANK": str(number)}
    return subprocess.Popen([sys.executable, "-m", "trainer.run", str(folder)], env=environment, stdout=sys.stderr)


def _end_with(process: subprocess.Popen[bytes], is_over: threading.Event) -> None:
    """A follower that fails alone would leave its peers waiting; what stops all of them reaches the leader in time."""
    if process.wait() != 0 and not is_over.wait(GRACE_SECONDS):
        os._exit(FOLLOWER_FAILED)


def _environment(number: int, count: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
