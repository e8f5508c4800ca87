"""The history of the canaries' figures: what it keeps, and what it tells."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from evaluator.self_test.drift import capital, drift_of, follow_drift
from evaluator.self_test.exchangeability import THRESHOLD, e_values
from policies.contract.artifacts import canonical_json, digest_bytes
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


def drifted() -> tuple[float, ...]:
    return tuple(level + 0.001 * (n * 7 % 10) for level, looks in ((1.0, 30), (2.0, 8)) for n in range(looks))


@pytest.mark.parametrize("n_new", [1, 3, 30])
def test_a_figure_that_appears_later_does_not_dilute_an_alarm(n_new: int) -> None:
    before = DriftHistory(
        policy=POLICY, base_model=BASE, calibration=None, n_looks=38, series={"bad margin": drifted()}
    )
    new = {f"good new {n}": (None,) * 38 + (1.0,) for n in range(n_new)}
    series = {"bad margin": (*drifted(), 2.0), **new}
    after = before.model_copy(update={"n_looks": 39, "series": series})

    assert drift_of(before).is_alarm
    assert drift_of(after).e_value >= drift_of(before).e_value


def test_figures_that_all_begin_together_count_evenly() -> None:
    draws = random.Random(2)
    series = {name: tuple(draws.gauss(0, 1) for _ in range(20)) for name in ("good margin", "bad margin")}
    found = drift_of(DriftHistory(policy=POLICY, base_model=BASE, calibration=None, n_looks=20, series=series))
    bets = [e_values(figures, key=f"{BASE} {name}") for name, figures in series.items()]

    assert found.e_value == pytest.approx(max(sum(each) / 2 for each in zip(*bets, strict=True)))


def test_a_figure_that_enters_late_bets_with_its_share_of_the_capital_there_is() -> None:
    """With A and B the e-processes, B from look 5 on: M(4) = A(4), and M(5) = M(4) · (½ A(5) / A(4) + ½ B(5))."""
    draws = random.Random(3)
    first, later = (tuple(draws.gauss(0, 1) for _ in range(n)) for n in (10, 5))
    series = {"good": first, "bad": (None,) * 5 + later}
    history = DriftHistory(policy=POLICY, base_model=BASE, calibration=None, n_looks=10, series=series)
    bets = {name: e_values(figures, key=f"{BASE} {name}") for name, figures in series.items()}
    a, b, found = bets["good"], bets["bad"], capital(history, bets)

    assert found[:5] == pytest.approx(a[:5])
    assert found[5] == pytest.approx(a[4] * (a[5] / a[4] + b[5]) / 2)
    assert found[9] == pytest.approx(a[4] * (a[9] / a[4] + b[9]) / 2)


def test_the_highest_value_is_kept_in_the_file(path: Path) -> None:
    path.parent.mkdir()
    told = DriftHistory(policy=POLICY, base_model=BASE, calibration=None, n_looks=1, series={}, highest=592.0)
    path.write_bytes(told.canonical())
    found = follow_drift(report(canary("good", margin=0.1)), path)

    assert found is not None
    assert (found.e_value, history(path).highest) == (592.0, 592.0)


def test_a_history_of_before_keeps_its_digest() -> None:
    old = {"policy": POLICY, "base_model": BASE, "calibration": None, "n_looks": 1, "series": {"good margin": [0.1]}}
    read = DriftHistory.model_validate_json(json.dumps(old))

    assert read.highest == 0.0
    assert read.digest == digest_bytes(canonical_json(old))


def test_quiet_history_is_no_alarm() -> None:
    draws = random.Random(1)
    series = {name: tuple(draws.gauss(0, 1) for _ in range(100)) for name in ("good margin", "bad margin")}
    found = drift_of(DriftHistory(policy=POLICY, base_model=BASE, calibration=None, n_looks=100, series=series))

    assert not found.is_alarm
