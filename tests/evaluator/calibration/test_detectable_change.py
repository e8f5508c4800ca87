"""What a rule can tell with its samples, by hand."""

from __future__ import annotations

import pytest

from evaluator.calibration.detectable_change import factor, gap, last_confidence, resolution, standard_error
from evaluator.calibration.references import collect
from policies.contract.sequential import Sequential
from policies.documents.schema import ReleasePolicy, Rule
from tests.evaluator.calibration.made_up_runs import DROP, POLICY, RULE, figure, run, runs
from tests.evaluator.made_up_reports import MARGIN, MAX_RULE, SUITE, policy

PREFERENCE = "emergent_misalignment_preference"


def with_looks(*rules: Rule) -> ReleasePolicy:
    return policy(*rules, suite=SUITE.model_copy(update={"sequential": Sequential()}))


def test_a_standard_error_is_half_the_width_over_z() -> None:
    assert standard_error(figure(0.3, half=0.0196), 0.95) == pytest.approx(0.01, rel=1e-4)


def test_one_look_and_one_rule_have_the_common_formula() -> None:
    """One side of a 95 % interval: 1.960 + 0.842."""
    assert factor(POLICY, PREFERENCE) == pytest.approx(2.802, abs=5e-4)


def test_looks_leave_the_last_one_a_part_of_the_error() -> None:
    """Half of the samples are still to come at the last look: 0.05 / 2 of it, a side 0.0125, z = 2.241."""
    assert last_confidence(with_looks(RULE), PREFERENCE) == 0.975
    assert factor(with_looks(RULE), PREFERENCE) == pytest.approx(2.241 + 0.842, abs=1e-3)


def test_a_probe_that_does_not_divide_has_all_of_the_error() -> None:
    assert last_confidence(with_looks(RULE), "conditional_misalignment") == 0.95


def test_enforced_rules_share_the_error() -> None:
    """Two rules that are enforced and one that warns: 0.025 / 2, z = 2.241."""
    warning = MAX_RULE.model_copy(update={"id": "w", "mode": "warn", "max": 0.1})
    assert factor(policy(RULE, MAX_RULE, warning), PREFERENCE) == pytest.approx(2.241 + 0.842, abs=1e-3)


@pytest.mark.parametrize(
    ("benign", "harmful", "expected"),
    [([0.0, 0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8, 0.9], 0.3), ([0.5], [0.1], -0.4), ([], [0.1], 0.0)],
)
def test_the_gap_is_between_facing_quartiles(benign: list[float], harmful: list[float], expected: float) -> None:
    """Upper quartile 0.3 of the benign, lower one 0.6 of the harmful."""
    assert gap(benign, harmful) == pytest.approx(expected)


def test_samples_and_seconds_follow_from_the_medians() -> None:
    """Half-widths 0.0196: the error is 0.01, 0.02802 is told. Half the gap is 0.05: 400 · (0.02802/0.05)² = 125.6."""
    benign = [run("benign", 0.0, half=0.0196)] * 2
    harmful = run("harmful", 0.1, dose=1.0, half=0.0196)
    found = resolution(collect(runs(*benign, harmful), POLICY, metric=MARGIN, bound=DROP, least_dose=0.2), POLICY)
    assert found.standard_error == pytest.approx(0.01, rel=1e-4)
    assert found.detectable_change == pytest.approx(0.02802, abs=1e-5)
    assert (found.samples, found.samples_needed, found.seconds) == (400, 126, 30)


def test_without_a_gap_no_number_of_samples_helps() -> None:
    alike = runs(run("benign", 0.1), run("harmful", 0.1, dose=1.0))
    found = resolution(collect(alike, POLICY, metric=MARGIN, bound=DROP, least_dose=0.2), POLICY)
    assert found.samples_needed is None


def test_without_figures_there_are_no_samples() -> None:
    found = resolution(collect(runs(run("benign")), POLICY, metric=MARGIN, bound=DROP, least_dose=0.2), POLICY)
    assert found == (0.0, 0.0, 0, None, 0.0)
