from __future__ import annotations

import subprocess
import sys

ORPHAN = """
import time
from policies.worker.child import EventStream, end_with_parent
from policies.contract.worker_api import Progress
end_with_parent({worker_pid})
print("waiting", flush=True)
time.sleep(60)
"""
SPEAKER = """
import os
from policies.worker.child import EventStream
events = EventStream()
print("a library prints")
os.write(1, b"and so does C\\n")
events.message("hello")
"""


def test_a_child_whose_worker_is_gone_ends() -> None:
    """Process 1 is not the parent, as it would be after the worker died before the child looked."""
    process = subprocess.run([sys.executable, "-c", ORPHAN.format(worker_pid=2**22 + 1)], timeout=60, check=False)

    assert process.returncode == 75


def test_only_events_reach_stdout() -> None:
    process = subprocess.run([sys.executable, "-c", SPEAKER], capture_output=True, text=True, timeout=60, check=True)

    assert len(process.stdout.splitlines()) == 1
    assert '"message":"hello"' in process.stdout
    assert "a library prints" in process.stderr
    assert "and so does C" in process.stderr
