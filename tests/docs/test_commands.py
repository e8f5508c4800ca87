"""Command lines in the documentation are understood by the command, and every command is documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest

from policies.cli import exit_codes

if TYPE_CHECKING:
    from conftest import CommandLine, Page

LINE = re.compile(r"(?:^|\s)tunegate (.*)$")


def test_each_declared_command_loads(entry_points: list[EntryPoint]) -> None:
    assert len(entry_points) >= 6
    for entry_point in entry_points:
        assert entry_point.load().registered_commands or entry_point.load().registered_groups, entry_point.name


def test_each_command_is_documented(page: Callable[[str], Page], command_line: CommandLine) -> None:
    spans, paths = set(page("docs/cli.md").spans), list(command_line.paths())
    assert len(paths) >= 20
    assert [path for path in paths if path not in spans] == []


def test_command_lines_in_blocks_are_understood(pages: list[Page], command_line: CommandLine) -> None:
    seen = 0
    for block in (block for page in pages for block in page.blocks if block.language == "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if found := LINE.search(line):
                seen += 1
                problem = command_line.problem(shlex.split(found[1], comments=True))
                assert problem is None, f"{block.page.name}: {line}: {problem}"
    assert seen >= 15


def test_command_lines_in_prose_name_commands(pages: list[Page], command_line: CommandLine) -> None:
    known = {path.removeprefix("tunegate ") for path in command_line.paths()}
    spans = [span.removeprefix("tunegate ") for page in pages for span in page.spans if span.startswith("tunegate ")]
    named = [" ".join(word for word in re.split(r"(?:^| )-", span)[0].split() if word.islower()) for span in spans]
    assert len(named) >= 30
    assert [name for name in named if name and not any(f"{path} ".startswith(f"{name} ") for path in known)] == []


@pytest.mark.parametrize("arguments", [["nonsense"], ["files", "upload"], ["serve", "--prot", "1"], ["train", "x"]])
def test_a_wrong_command_line_would_be_found(command_line: CommandLine, arguments: list[str]) -> None:
    assert command_line.problem(arguments) is not None


def test_each_exit_code_is_documented(page: Callable[[str], Page]) -> None:
    codes = [value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)]
    assert len(codes) >= 6
    assert [code for code in codes if f"\n| {code} |" not in page("docs/cli.md").text] == []
