"""Which mutants no test notices: prints the score, and exits with 1 where one is not known to be equivalent.

`mutmut run` leaves its results in `mutants/`; `equivalent_mutants.toml` lists the mutants that decide nothing, with the
reason. An entry names a function, a line of it, and what that line may become without a test noticing. One that fits no
survivor is an error as well, so the list never holds more than it must.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
NOTICED = ("killed", "caught by type check")


class Equivalent(NamedTuple):
    """Changes of one line that alter nothing which decides."""

    function: str
    """`package.module.function`, as mutmut names it."""
    line: str
    becomes: tuple[str, ...]
    reason: str


class Change(NamedTuple):
    """What a mutant replaces in a function: lines without indentation, joined by ` ⏎ ` where there are several."""

    function: str
    line: str
    becomes: str


class Verdict(NamedTuple):
    """Mutants by name."""

    unnoticed: dict[str, Change]
    """Survivors that nobody has shown to be equivalent."""
    equivalent: dict[str, Change]
    stale: list[tuple[str, str, str]]
    """Function, line and change of entries that fit no survivor."""


def judge(survivors: Mapping[str, Change], allowed: Sequence[Equivalent]) -> Verdict:
    """Holds survivors against the list of those that may be."""
    listed = {(entry.function, entry.line, change) for entry in allowed for change in entry.becomes}
    equivalent = {name: change for name, change in survivors.items() if tuple(change) in listed}
    unnoticed = {name: change for name, change in survivors.items() if name not in equivalent}
    return Verdict(unnoticed, equivalent, sorted(listed - {tuple(change) for change in equivalent.values()}))


def parse_statuses(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and status of each mutant, from `mutmut results --all true`."""
    for line in lines:
        name, separator, status = line.strip().rpartition(": ")
        if separator:
            yield name, status


def parse_change(name: str, diff: Iterable[str]) -> Change:
    """What a mutant changes, from the unified diff that `mutmut show` prints."""
    lines = [line for line in diff if not line.startswith(("---", "+++"))]
    removed, added = (_joined(line[1:] for line in lines if line.startswith(sign)) for sign in "-+")
    module, _, function = name.partition("__mutmut_")[0].rpartition(".")
    return Change(f"{module}.{function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}", removed, added)


def _joined(lines: Iterable[str]) -> str:
    return " ⏎ ".join(line.strip() for line in lines)


def modules_without_mutants(names: Iterable[str], patterns: Iterable[str], root: Path) -> list[str]:
    """Patterns of files to mutate that match nothing, and files with functions that got no mutant."""
    mutated = {name.rpartition(".")[0] for name in names}
    found = []
    for pattern in patterns:
        paths = [path.relative_to(root) for path in root.glob(pattern) if "def " in path.read_text()]
        found += [str(path) for path in paths if ".".join(path.with_suffix("").parts) not in mutated]
        found += [] if paths else [pattern]
    return found


def table(statuses: Mapping[str, str], equivalent: Iterable[str]) -> Iterator[str]:
    """Markdown: of each module the mutants, how many were noticed by what, and the share of those that could be."""
    yield "| module | mutants | noticed by a test | by the type checker | equivalent | score |"
    yield "|---|---|---|---|---|---|"
    spared, counts = set(equivalent), Counter[tuple[str, str]]()
    for name, status in statuses.items():
        module = name.rpartition(".")[0]
        for row in (module, "all"):
            counts[row, "equivalent" if name in spared else status] += 1
    modules = sorted({module for module, _ in counts} - {"all"})
    for module in (*modules, "all"):
        of = {status: count for (row, status), count in counts.items() if row == module}
        total, same = sum(of.values()), of.get("equivalent", 0)
        killed, typed = (of.get(status, 0) for status in NOTICED)
        score = 100 * (killed + typed) / max(1, total - same)
        name = module if module == "all" else f"`{module}`"
        yield f"| {name} | {total} | {killed} | {typed} | {same} | {score:.1f} % |"


def read_equivalents(path: Path) -> list[Equivalent]:
    return TypeAdapter(list[Equivalent]).validate_python(tomllib.loads(path.read_text())["mutants"])


def main(say: Callable[[str], None] = print) -> int:
    statuses = dict(parse_statuses(_mutmut("results", "--all", "true")))
    survivors = {
        name: parse_change(name, _mutmut("show", name)) for name, status in statuses.items() if status not in NOTICED
    }
    verdict = judge(survivors, read_equivalents(EQUIVALENT))
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    missing = modules_without_mutants(statuses, patterns, ROOT)
    for line in table(statuses, verdict.equivalent):
        say(line)
    for name, change in verdict.unnoticed.items():
        say(f"\n{statuses[name]}: {name}\n  - {change.line}\n  + {change.becomes}")
    for entry in verdict.stale:
        say("\nlisted as equivalent, but no survivor: {}\n  - {}\n  + {}".format(*entry))
    for module in missing:
        say(f"\nno mutants in {module}")
    return int(bool(verdict.unnoticed or verdict.stale or missing or not statuses))


def _mutmut(*arguments: str) -> list[str]:
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
