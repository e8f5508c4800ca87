"""Ends process groups when the process that started this one is gone: `python -m gateway.embedded.reaper`.

Reads `+PID` (watch this group) and `-PID` (it ended) from standard input. The end of input means that the starter
ended, well or by a kill: whatever is still watched is killed then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watched: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            watched.add(pid)
        else:
            watched.discard(pid)
    for pid in watched:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
