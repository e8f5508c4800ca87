"""Command lines in the documentation are understood by the command, and every command is documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.cli.files import COMMANDS as FILE_COMMANDS
from policies.cli import exit_codes
from policies.cli.lazy_commands import Command

if TYPE_CHECKING:
    from tests.docs.conftest import CommandLine, Page

LINE = re.compile(r"(?:^|\s)tunegate (.*)$")
MAKE = re.compile(r"^make ([a-z-]+)")


def test_the_line_of_each_command_is_what_the_command_says_of_itself(commands: list[Command]) -> None:
    declared = [*commands, *FILE_COMMANDS]
    assert len(declared) >= 20
    first_lines = {
        command.name: " ".join(str(command.load().help).partition("\n\n")[0].split()) for command in declared
    }
    assert {command.name: command.summary for command in declared} == first_lines


def test_no_command_is_declared_twice(commands: list[Command]) -> None:
    assert len({command.name for command in commands}) == len(commands)


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


def test_targets_that_pages_name_are_rules_of_the_makefile(pages: list[Page], root: Path) -> None:
    rules = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), flags=re.MULTILINE))
    lines = [
        line for page in pages for block in page.blocks if block.language == "bash" for line in block.text.splitlines()
    ]
    named = [found for text in lines + [span for page in pages for span in page.spans] for found in MAKE.findall(text)]
    assert len(named) >= 15
    assert {name for name in named if name not in rules} == set()


@pytest.mark.parametrize("arguments", [["nonsense"], ["files", "upload"], ["serve", "--prot", "1"], ["train", "x"]])
def test_a_wrong_command_line_would_be_found(command_line: CommandLine, arguments: list[str]) -> None:
    assert command_line.problem(arguments) is not None


def test_each_exit_code_is_documented(page: Callable[[str], Page]) -> None:
    codes = [value for name, value in vars(exit_codes).items() if name.isupper() and type(value) is int]
    assert len(codes) >= 6
    assert [code for code in codes if f"\n| {code} |" not in page("docs/cli.md").text] == []
