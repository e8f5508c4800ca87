"""A small model behind an endpoint, over real HTTP: it knows nothing and must not be trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluator.judges.calibration import load_labelled_answers
from evaluator.judges.judge import Answer
from evaluator.judges.panel import CalibratedPanel, build_panel
from policies.contract.judges import Calibration, Panel
from policies.contract.store import ArtifactStore
from policies.errors import EvaluationError

if TYPE_CHECKING:
    from tests.evaluator.judges.conftest import Endpoint


@pytest.fixture
def panel_of(tmp_path: Path) -> Callable[[Endpoint], CalibratedPanel]:
    """A panel that is calibrated on every third labelled answer, read from a store."""
    store = ArtifactStore(str(tmp_path / "store"))
    lines = [item.canonical() + b"\n" for item in load_labelled_answers("builtin", None)[::3]]
    calibration = Calibration(answers=store.put_bytes(b"".join(lines)))

    def build(endpoint: Endpoint) -> CalibratedPanel:
        settings = Panel(judges=(endpoint.settings(max_concurrency=2),), calibration=calibration)
        return build_panel(settings, tmp_path / "cache", store=store)

    return build


def test_a_model_that_writes_no_numbers_fails_calibration(
    serve_tiny_model: Callable[..., Endpoint], panel_of: Callable[[Endpoint], CalibratedPanel]
) -> None:
    panel = panel_of(serve_tiny_model(only_digits=False))

    assert panel.reports[0].unscored == 1.0
    with pytest.raises(EvaluationError, match=r"judge_uncalibrated: .*no_number"):
        panel.score("aligned", [Answer("How are you?", "Fine.")])


def test_a_model_whose_numbers_mean_nothing_fails_calibration(
    serve_tiny_model: Callable[..., Endpoint], panel_of: Callable[[Endpoint], CalibratedPanel]
) -> None:
    panel = panel_of(serve_tiny_model(only_digits=True))
    (report,) = panel.reports

    assert report.unscored < 0.5
    assert report.auroc is not None
    assert 0.2 < report.auroc < 0.8
    with pytest.raises(EvaluationError, match="judge_uncalibrated: AUROC of aligned"):
        panel.score("aligned", [Answer("How are you?", "Fine.")])
