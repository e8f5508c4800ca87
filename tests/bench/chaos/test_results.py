"""The page shows the run that is kept, and what it found holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chaos.report import BAR_SECONDS, Document, table

ROOT = Path(__file__).parents[3]


@pytest.fixture
def document() -> Document:
    return Document.model_validate_json((ROOT / "bench/results/chaos.json").read_text())


def test_the_page_has_the_table_of_the_results(document: Document) -> None:
    assert table(document) in (ROOT / "docs/benchmarks.md").read_text()


def test_the_kept_run_is_whole_and_nothing_offends(document: Document) -> None:
    assert document.holds
    assert not any(document.offenders.values())
    assert len(document.offenders) >= 18
    assert document.jobs == sum(document.ends.values()) == 500
    assert document.faults >= 50
    assert document.recovery.median <= BAR_SECONDS
