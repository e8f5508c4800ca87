"""Checks that a version is ready to be tagged: `python scripts/release.py 0.2.0`; it changes nothing.

Prints what is wrong, a line each, and ends with 1; or the commands that publish, and ends with 0.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ".venv/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir build/wheels ."
VERSION = re.compile(r"\d+\.\d+\.\d+")


def problems(root: Path, version: str, *, today: date) -> Iterator[str]:
    """Why `version` can't be released from the files below `root`."""
    if VERSION.fullmatch(version) is None:
        yield f"{version!r} is not a version; write three numbers, such as 0.2.0"
        return
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if declared != version:
        yield f"pyproject.toml: version is {declared}; set it to {version}"
    if f"Version {version}" not in (root / "README.md").read_text():
        yield f"README.md: the section Status does not say Version {version}"
    changes = (root / "CHANGELOG.md").read_text()
    heading = f"## [{version}] - {today.isoformat()}"
    if heading not in changes:
        yield f"CHANGELOG.md: there is no heading {heading!r}; move what is under [Unreleased] below it"
    unreleased = changes.partition("## [Unreleased]\n")[2].partition("\n## ")[0].strip()
    if unreleased:
        yield "CHANGELOG.md: [Unreleased] still lists changes; move them below the version's heading"


def repository_problems(root: Path, version: str) -> Iterator[str]:
    """Why the repository is not in the state to tag `version`."""
    if _git(root, "status", "--porcelain"):
        yield "the working tree has changes; commit them"
    if _git(root, "tag", "--list", f"v{version}"):
        yield f"the tag v{version} exists; a released version is never changed"


def _git(root: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """The exit code."""
    if len(sys.argv) != 2:
        print("usage: python scripts/release.py VERSION")
        return 1
    version = sys.argv[1]
    found = [*problems(ROOT, version, today=datetime.now(UTC).date()), *repository_problems(ROOT, version)]
    for problem in found:
        print(problem)
    if not found:
        print(f"ready; publish with:\n  git tag --sign v{version} && git push origin v{version}\n  {BUILD}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
