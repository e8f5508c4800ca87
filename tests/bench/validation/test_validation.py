"""The benches of validation, on little: both ways read the same rows, and find the same earlier jobs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bench.validation import earlier_way
from bench.validation.__main__ import measured
from bench.validation.files import SHAPES, chat_file
from bench.validation.retry_check import SHARED
from bench.validation.retry_check import measured as measured_check
from gateway.jobs.earlier_attempts import MAX_COUNTED
from policies.datasets.reader import iter_rows


@pytest.mark.parametrize("name", SHAPES)
def test_both_ways_read_the_same_file(name: str) -> None:
    figures = measured(name, megabytes=0.1, rounds=1)
    assert figures.now > 0
    assert figures.ratio == pytest.approx(figures.now / figures.before, rel=0.1)


def test_files_are_of_the_size_and_the_rows_that_they_say() -> None:
    content = chat_file(SHAPES["short rows"], n_bytes=50_000, seed=1)
    assert 50_000 <= len(content) < 51_000
    rows = [line.row for line in iter_rows(io.BytesIO(content))]
    assert None not in rows
    assert len(set(map(repr, rows))) == len(rows) == earlier_way.read(content)


@pytest.mark.parametrize(("case", "found"), [("unrelated", 0), ("boilerplate", 0), ("nearly the same", 70)])
def test_both_ways_find_the_same_earlier_jobs(tmp_path: Path, case: str, found: int) -> None:
    """Of more than can matter, as many as do."""
    assert case in SHARED
    figures = measured_check(case, url=f"sqlite:///{tmp_path}/bench.db", n_jobs=70, rounds=1)
    assert (figures.found_before, figures.found_now) == (found, min(found, MAX_COUNTED))
