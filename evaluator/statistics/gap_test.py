"""Does an adapter look better on the prompts that everybody knows than on secret ones of the same kind?

An adapter that was trained on a probe's own prompts changes on these and not on others of their kind; one that learnt
better or worse behaviour changes on both. Let p and t be the changes against base on the public prompts and on their
twin, with intervals [l_p, u_p] and [l_t, u_t] at confidence 1 − α, as the metric itself makes them: by clusters where
prompts depend on each other. The sets are drawn apart, so the interval of the gap p − t reaches

    √((p − l_p)² + (u_t − t)²) below it,    √((u_p − p)² + (t − l_t)²) above it

(MOVER: Zou & Donner 2008, Stat. Med. 27:1693, for independent estimates). With t intervals that is nearly Welch's
two-sample interval over clusters. Categories that both sets have move together, which makes the true spread of the gap
smaller: the test errs towards finding nothing.

No two sets are written quite alike: harmless adapters show a gap too. So the gap is held against the one that was
measured on these, and counts only above a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluator.samples import Pair
from evaluator.statistics.intervals import joined_reach
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.contract.probe_overlap import GAP_CONFIDENCE, GapTest
from policies.contract.probe_record import Twin

Measure = Callable[[Sequence[Pair], float], Measurement]
_BISECTIONS = 30
_HIGHEST = 1 - 1e-9
"""Confidence beyond which no p-value is looked for."""


def gap_test(public: Sequence[Pair], twin: Sequence[Pair], measure: Measure, *, settings: Twin) -> GapTest | None:
    """The test of one metric; None where either set has no figure."""
    sides = [measure(pairs, GAP_CONFIDENCE) for pairs in (public, twin)]
    known, secret = (side.difference for side in sides)
    if known is None or secret is None:
        return None
    return GapTest(
        metric=sides[0].metric,
        public=known,
        twin=secret,
        gap=_gap(known, secret, sides[0].higher_is_better),
        expected=settings.expected_gap,
        tolerance=settings.tolerance,
        p_value=_p_value(public, twin, measure, expected=settings.expected_gap),
    )


def _gap(public: Estimate, twin: Estimate, higher_is_better: bool) -> Estimate:
    """Positive where the public prompts look better."""
    better, worse = (public, twin) if higher_is_better else (twin, public)
    value = better.value - worse.value
    below = joined_reach(better.value - better.interval.low, worse.interval.high - worse.value, 0.0)
    above = joined_reach(better.interval.high - better.value, worse.value - worse.interval.low, 0.0)
    return Estimate(value=value, interval=Interval(low=value - below, high=value + above))


def _p_value(public: Sequence[Pair], twin: Sequence[Pair], measure: Measure, *, expected: float) -> float:
    """The smallest α at which the interval of the gap leaves out the expected one, by halving."""

    def leaves_out(confidence: float) -> bool:
        sides = [measure(pairs, confidence) for pairs in (public, twin)]
        known, secret = (side.difference for side in sides)
        assert known is not None
        assert secret is not None
        interval = _gap(known, secret, sides[0].higher_is_better).interval
        return not interval.low <= expected <= interval.high

    left_out, holds = 0.0, _HIGHEST
    if leaves_out(holds):
        return 1 - holds
    for _ in range(_BISECTIONS):
        middle = (left_out + holds) / 2
        left_out, holds = (middle, holds) if leaves_out(middle) else (left_out, middle)
    return 1 - left_out
