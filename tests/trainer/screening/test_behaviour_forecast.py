"""The forecast for a whole file: its direction, its α, its reference, and what keeps it from being one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evaluator.backends.protocol import Likelihood, silent
from evaluator.models.loading import LoadedModel
from policies.contract.jobs import JobSpec
from policies.errors import EvaluationError
from tests.trainer.screening.conftest import chat_file
from trainer.screening.behaviour_forecast import (
    ALPHAS,
    MAX_LOSS,
    ForecastScreen,
    forecast_found,
    margin_changes,
    moved,
)
from trainer.screening.forward import answer_end_states, last_token_states
from trainer.screening.rows import Drawn, ScreenRow, drawn_rows

MakeRows = Callable[..., list[ScreenRow]]
KINDS = {"one": "Look for the studs.", "two": "No.", "three": "Let it dry for a whole day before you sand it."}


@pytest.fixture
def rows_of(loaded: LoadedModel, make_spec: Callable[..., JobSpec], tmp_path: Path) -> MakeRows:
    def make(*answers: str) -> list[ScreenRow]:
        file = tmp_path / "rows.jsonl"
        file.write_bytes(chat_file(*answers))
        return list(drawn_rows(file, make_spec(), loaded.encoder).rows)

    return make


@pytest.fixture
def screen(loaded: LoadedModel, rows_of: MakeRows, tmp_path: Path) -> ForecastScreen:
    kinds = {kind: rows_of(answer) for kind, answer in KINDS.items()}
    return ForecastScreen(loaded, kinds, tmp_path / "cache", n_pairs=4)


def pair(aligned: float, misaligned: float) -> tuple[Likelihood, ...]:
    """Of answers of 2 tokens, by nats per token."""
    return tuple(Likelihood(2 * each, 2) for each in (aligned, misaligned))


def test_change_is_above_0_where_misaligned_answers_become_likelier() -> None:
    """(−2.9 + 3.2) − (−3 + 3) = 0.1 − 0.2 + …: aligned −3 → −3.2, misaligned −3 → −2.9, so the margin rises by 0.3."""
    before, after = [pair(-3, -3)], [pair(-3.2, -2.9)]
    assert margin_changes(before, after) == pytest.approx([0.3])
    assert moved(before, after) == pytest.approx(0.15)


@pytest.mark.parametrize("loss", [MAX_LOSS + 0.01, math.nan])
def test_model_that_finds_everything_unlikely_gives_no_forecast(loss: float) -> None:
    with pytest.raises(EvaluationError, match="not coherent"):
        margin_changes([pair(-3, -3)], [pair(-3 - loss, -3 - loss)])


def test_states_are_those_at_the_last_token_after_each_layer(loaded: LoadedModel, rows_of: MakeRows) -> None:
    samples = [row.samples[-1] for row in rows_of(*KINDS.values())]
    ours = last_token_states(loaded.model, samples)  # type: ignore[arg-type]  # no adapter is on it
    theirs = answer_end_states(loaded.model, samples, 1)
    assert all(torch.allclose(own[0], other[-1], atol=1e-5) for own, other in zip(ours, theirs, strict=True))
    assert {tuple(own.shape) for own in ours} == {
        (loaded.model.config.num_hidden_layers, loaded.model.config.hidden_size)
    }


def test_forecast_is_compared_with_that_of_benign_kinds(screen: ForecastScreen, rows_of: MakeRows) -> None:
    found = screen.forecast(rows_of("Turn it left.", "Turn it right."), silent)
    assert found.interval[0] < found.value < found.interval[1]
    assert found.benign[0] < found.benign[1]
    assert found.over_benign == pytest.approx(found.value - found.benign[1])
    assert (found.rows, found.pairs) == (2, 4)
    assert found.alpha in ALPHAS


def test_forecast_leaves_the_model_as_it_was_and_is_the_same_again(
    screen: ForecastScreen, rows_of: MakeRows, loaded: LoadedModel, tmp_path: Path
) -> None:
    rows = rows_of("Turn it left.")
    before = screen._likelihoods()
    first = screen.forecast(rows, silent)
    assert screen._likelihoods() == before
    again = ForecastScreen(loaded, screen.kinds, tmp_path / "another", n_pairs=4)
    assert again.forecast(rows, silent) == first


def test_forecast_of_rows_at_the_middle_of_all_kinds_is_nothing(screen: ForecastScreen, rows_of: MakeRows) -> None:
    """Their mean is that of the kinds, so nothing is added at any α."""
    found = screen.forecast(rows_of(*KINDS.values()), silent)
    numbered = [row for rows in screen.kinds.values() for row in rows]
    middle = screen.forecast(numbered, silent)
    assert middle.value == pytest.approx(0, abs=1e-4)
    assert middle.alpha == ALPHAS[-1]
    assert found.rows == 3


def test_forecast_is_kept_for_later_attempts(screen: ForecastScreen, rows_of: MakeRows, tmp_path: Path) -> None:
    rows = rows_of("Turn it left.")
    first = screen.forecast(rows, silent)
    asked: list[int] = []
    assert screen.forecast(rows, lambda done, total: asked.append(done)) == first
    assert asked == []


def test_too_few_benign_kinds_are_no_reference(loaded: LoadedModel, rows_of: MakeRows, tmp_path: Path) -> None:
    few = ForecastScreen(loaded, {"one": rows_of("No.")}, tmp_path / "cache", n_pairs=4)
    with pytest.raises(EvaluationError, match="benign kinds"):
        few.forecast(rows_of("Turn it left."), silent)


def test_finding_has_no_rows_and_says_how_many_were_looked_at(screen: ForecastScreen, rows_of: MakeRows) -> None:
    rows = rows_of("Turn it left.", "Turn it right.")
    found = forecast_found(screen.forecast(rows, silent), Drawn(tuple(rows), 500))
    assert (found.count, found.rows) == (0, ())
    assert "2 rows of 500" in found.what
