"""The table of architectures is that of the tests."""

from __future__ import annotations

from pathlib import Path

from tests.architectures.bases import ALL_LINEAR, ARCHITECTURES, ATTENTION, Architecture
from tests.docs.conftest import Page

NAMED = {ALL_LINEAR: "all linear", ATTENTION: "attention"}


def row(name: str, tested: Architecture) -> str:
    template = f"`{tested.template}`" if tested.template else "ChatML"
    targets = NAMED.get(tested.targets) or ", ".join(f"`{target}`" for target in tested.targets)
    return f"| {name} | `{tested.model_type}` | {template} | {targets} |"


def test_every_tested_architecture_and_no_other_is_listed(root: Path) -> None:
    section = Page(root / "docs" / "policy.md").section("Tested architectures")
    listed = [line.rpartition(" | ")[0].removesuffix(" |") for line in section.splitlines() if line.startswith("| ")]
    assert [f"{each} |" for each in listed[1:]] == [row(*each) for each in ARCHITECTURES.items()]
