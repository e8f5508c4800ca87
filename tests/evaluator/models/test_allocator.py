from __future__ import annotations

import resource
import subprocess
import sys

REUSE = """
import resource, torch
from evaluator.models.allocator import keep_freed_memory
keep_freed_memory()
def touch():
    torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    before = touch()
print(touch() - before)
"""


def test_freed_buffers_are_used_again() -> None:
    """A 64 MiB buffer has 16,384 pages; one that is used again is not faulted in again.

    Small allocations come to lie between the first few buffers, so it takes some before one fits where another was.
    """
    process = subprocess.run([sys.executable, "-c", REUSE], capture_output=True, text=True, timeout=60, check=True)

    assert int(process.stdout) < (64 << 20) // resource.getpagesize() // 10
