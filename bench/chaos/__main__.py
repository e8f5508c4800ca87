"""Jobs under faults, on this machine alone: `python -m bench.chaos`.

Processes are killed and stopped, Redis and PostgreSQL end, the store fails, the disk fills up, the clock jumps, and
messages are lost and doubled. In the end each job must have ended exactly once, with all that belongs to it. The last
line is one JSON object; whatever does not hold is listed before it, and ends the command with status 1.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.chaos.report import as_document, table
from bench.chaos.study import Plan, run
from gateway.embedded.processes import interrupt_on_signals

STORE_BYTES = 512 << 20
CLONE_NEWNS = 0x00020000


def main(command_line: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(command_line)
    interrupt_on_signals()
    with TemporaryDirectory(prefix="tunegate-chaos-") as name, _small_store(Path(name, "store")) as is_small:
        asked = {field: getattr(arguments, field) for field in Plan._fields if hasattr(arguments, field)}
        try:
            document = as_document(run(Plan(**asked, limited_store=is_small), Path(name)))
        finally:
            if arguments.logs is not None:
                shutil.copytree(Path(name, "data", "logs"), arguments.logs, dirs_exist_ok=True)
    print(table(document))
    for check, offenders in document.offenders.items():
        for offender in offenders:
            print(f"{check}: {offender}", file=sys.stderr)
    if arguments.out is not None:
        arguments.out.write_text(document.model_dump_json(indent=2) + "\n")
    print(json.dumps(document.model_dump()))
    return int(not document.holds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", dest="n_jobs", type=int, default=500)
    parser.add_argument("--faults", dest="n_faults", type=int, default=60)
    parser.add_argument("--real", dest="n_real", type=int, default=10, help="jobs that torch trains and evaluates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=45.0, help="the run ends then, whatever is left")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--out", type=Path, help="write the JSON here, too")
    parser.add_argument("--logs", type=Path, help="keep the parts' logs in this folder")
    return parser


@contextmanager
def _small_store(folder: Path) -> Iterator[bool]:
    """A file system of its own that can be filled, where this user may mount one; it ends with this process."""
    folder.mkdir()
    is_small = os.geteuid() == 0 and ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
    commands = (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", f"size={STORE_BYTES}", "none", str(folder)],
    )
    is_small = is_small and all(subprocess.run(command, check=False).returncode == 0 for command in commands)
    try:
        yield is_small
    finally:
        if is_small:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607  # of the system's own


if __name__ == "__main__":
    sys.exit(main())
