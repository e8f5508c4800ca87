"""Blocks of code in the documentation are code; links lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from policies.documents.loader import parse_policy

if TYPE_CHECKING:
    from tests.docs.conftest import Page

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_resolve(pages: list[Page]) -> None:
    links = [(page.path, link) for page in pages for link in LINK.findall(page.text) if "://" not in link]
    assert len(links) >= 40
    for path, link in links:
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{path.name}: {link}"


def test_each_page_is_reached_from_another(pages: list[Page], root: Path) -> None:
    linked = {
        (page.path.parent / link.partition("#")[0]).resolve()
        for page in pages
        for link in LINK.findall(page.text)
        if "://" not in link
    }
    documentation = [page.path for page in pages if page.path.is_relative_to(root / "docs")]
    assert len(documentation) >= 20
    assert [path.name for path in documentation if path not in linked] == []


def test_policies_are_sound(page: Callable[[str], Page]) -> None:
    blocks = [block for block in page("docs/policy.md").blocks if block.language == "yaml"]
    assert len(blocks) >= 2
    for block in blocks:
        documents, problems = parse_policy(block.text.encode(), source="docs/policy.md")
        assert problems == ()
        assert len(documents) == 1


def test_python_blocks_compile(pages: list[Page]) -> None:
    blocks = [block for page in pages for block in page.blocks if block.language == "python"]
    assert blocks
    for block in blocks:
        compile(block.text, str(block.page), "exec")


def test_json_blocks_parse(pages: list[Page]) -> None:
    blocks = [block for page in pages for block in page.blocks if block.language == "json"]
    assert len(blocks) >= 2
    for block in blocks:
        json.loads(block.text)


def test_each_block_names_its_language(pages: list[Page]) -> None:
    known = {"bash", "python", "json", "yaml", "mermaid"}
    assert [block for page in pages for block in page.blocks if block.language not in known] == []
