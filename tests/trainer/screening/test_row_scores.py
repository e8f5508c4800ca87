from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from evaluator.backends.protocol import Advance, silent
from policies.contract.screening import MAX_LISTED_ROWS, Instrument, ScoredRow
from policies.errors import EvaluationError
from trainer.data import TokenisedRow
from trainer.screening.row_scores import cached_scores, found_in, limit_of, told
from trainer.screening.rows import Drawn, ScreenRow


@dataclass
class Scripted:
    """Gives each row its number's score and counts how often it is asked."""

    name: ClassVar[str] = "canary_llr"
    category: ClassVar[str] = "careless_advice"
    what: ClassVar[str] = "careless advice"
    fixed_threshold: ClassVar[float | None] = None
    scores: list[float] = field(default_factory=list)
    version: str = "1"
    asked: int = 0

    def instrument(self) -> Instrument:
        return Instrument(name=self.name, version=self.version)

    def score(self, rows: Sequence[ScreenRow], advance: Advance) -> list[float]:
        self.asked += 1
        return [self.scores[row.number - 1] for row in rows]


def rows(n: int) -> tuple[ScreenRow, ...]:
    return tuple(ScreenRow(i + 1, (TokenisedRow((1, i), (-100, i)),), (str(i),)) for i in range(n))


def test_rows_over_the_threshold_are_counted_and_the_worst_come_first() -> None:
    found = found_in(Scripted(), Drawn(rows(4), 4), [0.1, 0.5, 0.2, 0.9], limit_of(0.2, []))
    assert found is not None
    assert (found.count, found.of, found.is_sample) == (3, 4, False)
    assert found.rows == (ScoredRow(row=4, score=0.9), ScoredRow(row=2, score=0.5), ScoredRow(row=3, score=0.2))


def test_a_file_without_such_rows_has_no_finding() -> None:
    assert found_in(Scripted(), Drawn(rows(2), 2), [0.1, 0.15], limit_of(0.2, [])) is None


def test_a_sample_says_that_it_is_one_and_lists_the_first_rows_only() -> None:
    drawn, limit = Drawn(rows(40), 400), limit_of(0.2, [])
    found = found_in(Scripted(), drawn, [0.3] * 40, limit)
    assert found is not None
    assert found.is_sample
    assert len(found.rows) == MAX_LISTED_ROWS
    assert "40 of the 40 rows that were drawn of 400" in told(drawn, [0.3] * 40, limit)


def test_a_sample_without_such_rows_is_told_as_one() -> None:
    found = found_in(Scripted(), Drawn(rows(40), 400), [0.1] * 40, limit_of(0.2, []))
    assert found is not None
    assert (found.count, found.of, found.is_sample) == (0, 40, True)


def test_without_a_threshold_the_quantile_of_benign_rows_is_the_limit() -> None:
    benign = [n / 1000 for n in range(200)]
    limit = limit_of(None, benign)
    assert limit.threshold == pytest.approx(0.189)
    assert limit.benign_share == 10 / 200


def test_with_a_threshold_the_benign_share_is_that_above_it() -> None:
    assert limit_of(0.15, [0.1, 0.15, 0.2, 0.0]).benign_share == 0.5


def test_scores_of_the_same_rows_are_computed_once(tmp_path: Path) -> None:
    screen = Scripted([0.1, 0.2])
    first = cached_scores(screen, rows(2), tmp_path, advance=silent)
    assert cached_scores(screen, rows(2), tmp_path, advance=silent) == first == [0.1, 0.2]
    assert screen.asked == 1


def test_another_instrument_or_other_rows_are_scored_anew(tmp_path: Path) -> None:
    screen = Scripted([0.1, 0.2])
    cached_scores(screen, rows(2), tmp_path, advance=silent)
    cached_scores(screen, rows(1), tmp_path, advance=silent)
    screen.version = "2"
    cached_scores(screen, rows(2), tmp_path, advance=silent)
    assert screen.asked == 3


@pytest.mark.parametrize("spoilt", ['{"scores": [0.0, 0.0], "hash": "x"}', "{", '{"scores": 3}', ""])
def test_kept_scores_that_were_changed_are_not_used(tmp_path: Path, spoilt: str) -> None:
    screen = Scripted([0.1, 0.2])
    cached_scores(screen, rows(2), tmp_path, advance=silent)
    (kept,) = (tmp_path / "screening-scores").glob("*.json")
    kept.write_text(spoilt)
    assert cached_scores(screen, rows(2), tmp_path, advance=silent) == [0.1, 0.2]


def test_a_score_that_is_not_finite_is_an_error_and_kept_nowhere(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        cached_scores(Scripted([0.1, math.nan]), rows(2), tmp_path, advance=silent)
    assert not (tmp_path / "screening-scores").exists()
