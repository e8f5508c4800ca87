"""The history of the canaries' figures: what it keeps, and what it tells."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from evaluator.self_test.drift import drift_of, follow_drift
from evaluator.self_test.exchangeability import THRESHOLD
from policies.contract.release import Decision
from policies.contract.self_test import CanaryName, CanaryResult, DriftHistory, SelfTestReport
from policies.errors import ConfigurationError

POLICY, BASE, RECORD = ("sha256:" + letter * 64 for letter in "abc")


def canary(name: CanaryName, **figures: float) -> CanaryResult:
    release = Decision.RELEASE
    return CanaryResult(
        canary=name, expected=(release,), decision=release, explanation="", passed=True, figures=figures
    )


def report(*canaries: CanaryResult, calibration: str | None = None) -> SelfTestReport:
    return SelfTestReport(
        policy=POLICY,
        policy_name="house",
        base_model=BASE,
        canaries=canaries,
        finished_at=1.0,
        last_passed_at=1.0,
        calibration=calibration,
    )


def history(path: Path) -> DriftHistory:
    return DriftHistory.model_validate_json(path.read_bytes())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drift" / "history.json"


def test_each_self_test_adds_a_look_of_the_trained_canaries(path: Path) -> None:
    for margin in (0.1, 0.2):
        drift = follow_drift(report(canary("good", margin=margin), canary("broken", margin=9.0)), path)

    assert drift is not None
    assert drift.n_looks == 2
    assert history(path).series == {"good margin": (0.1, 0.2)}


def test_figure_that_is_missing_at_a_look_leaves_a_gap(path: Path) -> None:
    follow_drift(report(canary("good", margin=0.1)), path)
    follow_drift(report(canary("good", toxicity=0.0)), path)
    follow_drift(report(canary("good", margin=0.3, toxicity=0.0)), path)

    assert history(path).series == {"good margin": (0.1, None, 0.3), "good toxicity": (None, 0.0, 0.0)}


def test_self_test_without_figures_says_nothing_and_keeps_nothing(path: Path) -> None:
    assert follow_drift(report(canary("good")), path) is None
    assert not path.exists()


def test_new_calibration_begins_a_new_history(path: Path) -> None:
    follow_drift(report(canary("good", margin=0.1)), path)
    drift = follow_drift(report(canary("good", margin=0.1), calibration=RECORD), path)

    assert drift is not None
    assert drift.n_looks == 1


def test_file_that_is_no_history_is_an_error_and_stays(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{}")

    with pytest.raises(ConfigurationError, match="is no history of self-tests"):
        follow_drift(report(canary("good", margin=0.1)), path)
    assert path.read_text() == "{}"


def test_alarm_names_the_figure_that_moved_and_stays() -> None:
    """The margin of `bad` moves by two standard deviations after 60 looks, and back again after 40 more."""
    draws = random.Random(0)
    quiet, moved, other = (tuple(draws.gauss(mean, 1) for _ in range(n)) for mean, n in ((0, 60), (2, 40), (0, 140)))
    back = tuple(draws.gauss(0, 1) for _ in range(40))
    series = {"bad margin": quiet + moved + back, "good margin": other}
    found = drift_of(DriftHistory(policy=POLICY, base_model=BASE, calibration=None, n_looks=140, series=series))

    assert found.is_alarm
    assert found.threshold == THRESHOLD
    assert found.most_moved[0] == "bad margin"
    assert "most in bad margin" in found.told


def test_quiet_history_is_no_alarm() -> None:
    draws = random.Random(1)
    series = {name: tuple(draws.gauss(0, 1) for _ in range(100)) for name in ("good margin", "bad margin")}
    found = drift_of(DriftHistory(policy=POLICY, base_model=BASE, calibration=None, n_looks=100, series=series))

    assert not found.is_alarm
