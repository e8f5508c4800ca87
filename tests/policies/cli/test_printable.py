"""Names of others on a terminal: shown as they are written, and obeyed by nobody."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from policies.cli.output import cells
from policies.cli.printable import printable

NAMES = ["[/]", "[red]a[/red]", "[link=https://example.org]a[/link]", "a[", "\\[bold]", "[/b", "[@click=app.bell]x[/]"]


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_like_markup_is_shown_as_it_is(name: str) -> None:
    """`[/]` alone raised MarkupError, the others lost letters."""
    console = Console(file=io.StringIO(), width=200)
    table = Table("name")
    table.add_row(*cells(name))
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    assert name in console.file.getvalue()


@pytest.mark.parametrize("code", ["\x1b[2J", "\x1b]0;title\x07", "\r", "\x9b", "\x7f", "\u202e", "\u2066", "\x00"])
def test_what_a_terminal_would_obey_is_replaced(code: str) -> None:
    shown = printable(f"a{code}b")
    assert code[0] not in shown
    assert shown.startswith("a\N{REPLACEMENT CHARACTER}")


def test_text_of_every_script_stays() -> None:
    text = "Größe\t10 μm\n日本語 🔑 עברית"
    assert printable(text) == text
