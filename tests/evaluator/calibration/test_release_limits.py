"""An adapter's release limit is where the gate itself begins to release it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.calibration.release_limits import allowed, orientation, released, score, worst_possible
from evaluator.gate import Standing, standing
from policies.contract.calibration import Bound, LookFigure
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.contract.suite import Capability, EmergentMisalignmentPreference, EvalSuite
from policies.documents.schema import Rule
from tests.evaluator.made_up_reports import MARGIN, PROMPTS, TOXIC, measurement, policy

SUITE = EvalSuite(probes=(Capability(prompts=PROMPTS), EmergentMisalignmentPreference(prompts=PROMPTS)))
MIN_SAMPLES = 50
METRICS: dict[Bound, str] = {
    "max": "capability.validation_loss",
    "min": MARGIN,
    "max_increase_over_base": "capability.validation_loss",
    "max_drop_from_base": MARGIN,
}
"""Metrics that are no shares, so that any limit may be stated where the bound lets it."""
TENTHS = st.integers(0, 30).map(lambda tenths: tenths / 10)


def look(low: float, high: float, n: int = 100) -> LookFigure:
    return LookFigure(value=(low + high) / 2, low=low, high=high, n=n)


@st.composite
def looks(draw: st.DrawFn) -> list[LookFigure]:
    """Intervals that need not agree with each other, some on too few samples."""
    figures = []
    for _ in range(draw(st.integers(1, 5))):
        low, high = sorted((draw(TENTHS), draw(TENTHS)))
        figures.append(look(low, high, n=draw(st.sampled_from([MIN_SAMPLES - 1, MIN_SAMPLES]))))
    return figures


def as_measured(figure: LookFigure, bound: Bound) -> Measurement:
    """What the probe would have measured, of which `figure` is what the rule judges."""
    sign = -1 if bound == "max_drop_from_base" else 1
    ends = sorted((sign * figure.low, sign * figure.high))
    judged = Estimate(value=sign * figure.value, interval=Interval(low=ends[0], high=ends[1]))
    return measurement(METRICS[bound], adapter=judged, difference=judged, n_requested=figure.n, n_scored=figure.n)


def gate_releases(figures: list[LookFigure], bound: Bound, limit: float) -> bool:
    """Walk through the looks as the runner does: the gate's standing says when to end, and how."""
    rule = Rule.model_validate({"id": "r", "metric": METRICS[bound], bound: limit, "min_samples": MIN_SAMPLES})
    under = policy(rule, suite=SUITE)
    for figure in figures:
        stands = standing(under, rule.probe, [as_measured(figure, bound)])
        if stands != Standing.OPEN:
            return stands == Standing.SETTLED
    return False


@pytest.mark.parametrize("bound", METRICS)
@given(figures=looks(), limit=TENTHS)
def test_the_gate_releases_under_a_limit_from_the_release_limit_on(
    bound: Bound, figures: list[LookFigure], limit: float
) -> None:
    found = score(figures, bound, min_samples=MIN_SAMPLES)
    assert gate_releases(figures, bound, limit) == (found <= orientation(bound) * limit)


def test_it_is_the_least_upper_end_of_intervals_that_agree() -> None:
    """Upper ends 0.5, 0.2, 0.3, all lower ends below 0.2: the second look releases under 0.2."""
    assert score([look(-0.5, 0.5), look(-0.1, 0.2), look(0.1, 0.3)], "max_increase_over_base") == 0.2


def test_an_earlier_look_that_fails_keeps_a_later_one_from_releasing() -> None:
    """Under any limit below 0.4 the first look rejects, so the second, with its end at 0.2, is never asked."""
    assert score([look(0.4, 0.6), look(0.0, 0.2)], "max_increase_over_base") == 0.4


def test_a_floor_mirrors_it() -> None:
    """The first look rejects under floors above 0.3; the second passes floors up to 0.5: those up to 0.3 release."""
    assert score([look(0.1, 0.3), look(0.5, 0.9)], "min") == -0.3


@pytest.mark.parametrize(
    "figures",
    [
        (),
        (look(0.0, 0.1, n=MIN_SAMPLES - 1),),
        (LookFigure(value=0.5, low=0.0, high=0.1, n=100),),
    ],
)
def test_without_a_figure_that_the_gate_reads_no_limit_releases(figures: tuple[LookFigure, ...]) -> None:
    assert score(figures, "max", min_samples=MIN_SAMPLES) == math.inf
    assert released([math.inf], 1e9) == 0


def test_the_worst_change_is_what_all_samples_could_show() -> None:
    assert worst_possible(TOXIC, "max_increase_over_base", 0.87, (None, 0.08, 0.0711)) == 0.0711
    assert worst_possible(TOXIC, "max_increase_over_base", 0.87, (None,)) == pytest.approx(0.13)


def test_a_look_that_nothing_can_fail_under_the_needed_limit_releases_nothing() -> None:
    """The first look would release from 0.06 on, but nothing is beyond 0.05 there; the second does from 0.07 on."""
    first, second = (
        LookFigure(value=0.0, low=-0.01, high=high, n=n, worst=worst)
        for high, n, worst in ((0.06, 50, 0.05), (0.07, 100, 0.09))
    )
    assert score((first, second), "max_increase_over_base") == 0.07
    assert score((first,), "max_increase_over_base") == math.inf


@pytest.mark.parametrize(
    ("metric", "bound", "base", "worst"),
    [
        (TOXIC, "max", None, 1.0),
        (TOXIC, "max_increase_over_base", 0.87, 0.13),
        (TOXIC, "max_increase_over_base", None, 1.0),
        ("capability.accuracy", "max_drop_from_base", 0.4, 0.4),
        ("capability.accuracy", "min", 0.4, 0.0),
        (MARGIN, "max_drop_from_base", 0.1, None),
    ],
)
def test_shares_have_a_worst_adapter(metric: str, bound: Bound, base: float | None, worst: float | None) -> None:
    assert worst_possible(metric, bound, base) == (None if worst is None else pytest.approx(worst))


@pytest.mark.parametrize(
    ("metric", "bound", "limit", "stated"),
    [
        (MARGIN, "max_drop_from_base", -0.2, 0.0),
        (MARGIN, "max_drop_from_base", 0.2, 0.2),
        (MARGIN, "min", 0.2, 0.2),
        ("capability.accuracy", "min", 0.2, 0.0),
        ("capability.accuracy", "min", -0.2, -0.2),
    ],
)
def test_limits_are_ones_that_a_policy_may_state(metric: str, bound: Bound, limit: float, stated: float) -> None:
    assert allowed(limit, metric, bound) == stated
