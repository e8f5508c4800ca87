"""Compares the interval of a rule's figure with its limit, and says how many samples would settle it."""

from __future__ import annotations

import math
from typing import Literal

from evaluator.gating.failability import why_it_cannot_fail
from policies.contract.calibration import Bound
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.contract.release import RuleOutcome
from policies.documents.schema import Rule


def judged_figure(bound: Bound, measurement: Measurement) -> Estimate | None:
    """The figure that a limit speaks of: the value, the increase over base, or the drop from base."""
    if bound in ("max", "min"):
        return measurement.adapter
    if measurement.difference is None or bound == "max_increase_over_base":
        return measurement.difference
    change = measurement.difference
    return Estimate(value=-change.value, interval=Interval(low=-change.interval.high, high=-change.interval.low))


def compare(rule: Rule, measurement: Measurement, confidence: float) -> tuple[RuleOutcome | Literal["unfailable"], str]:
    """How the judged figure stands to the limit, and why.

    Args:
        confidence: of the measurement's intervals.
    """
    judged = judged_figure(rule.bound, measurement)
    if judged is None or not all(map(math.isfinite, (judged.value, judged.interval.low, judged.interval.high))):
        return "error", f"{rule.metric} has no finite figure to compare with {rule.bound}"
    if not judged.interval.low <= judged.value <= judged.interval.high:
        return "error", f"{rule.metric}: the value {judged.value:.4g} lies outside its own interval"
    if contradiction := _contradiction(measurement):
        return "error", f"{rule.metric} {contradiction}"
    if _n_samples(measurement) < rule.min_samples:
        return "inconclusive", f"{_n_samples(measurement)} scored samples, {rule.min_samples} needed"
    # a quotient, because 0.29 · 100 is less than 29 in binary fractions, but 29 / 100 is 0.29
    if measurement.n_errored / measurement.n_requested > rule.max_error_rate:
        return "inconclusive", f"{measurement.n_errored} of {measurement.n_requested} samples errored"
    low, high = judged.interval.low, judged.interval.high
    is_floor = rule.bound == "min"
    inside = low >= rule.limit if is_floor else high <= rule.limit
    outside = high < rule.limit if is_floor else low > rule.limit
    figures = f"{rule.metric} {judged.value:+.4f} [{low:+.4f}, {high:+.4f}] {measurement.unit}"
    against = f"{rule.bound} {rule.limit:g}"
    if outside:
        return "fail", f"{figures} breaks {against}" + (f". {rule.reason}" if rule.reason else "")
    if never := why_it_cannot_fail(rule, measurement, confidence):
        return "unfailable", never
    if inside:
        return "pass", f"{figures} is within {against}"
    return "inconclusive", f"{figures} has {against} inside its interval"


def _contradiction(measurement: Measurement) -> str | None:
    """What can't be true of its counts: every requested sample is either scored or errored, none is both or lost."""
    scored, errored, requested = measurement.n_scored, measurement.n_errored, measurement.n_requested
    n_lost, n_samples = requested - scored - errored, _n_samples(measurement)
    checks = {
        "has a negative count": min(errored, n_samples, measurement.n_truncated, measurement.n_clusters) < 0,
        "counts more samples than were requested": n_lost < 0,
        f"lost {n_lost} of {requested} requested samples: they are neither scored nor errored": n_lost > 0,
        "has more samples in its denominator than were scored": n_samples > scored,
        "has more truncated samples than were requested": measurement.n_truncated > requested,
        "has more clusters than samples": measurement.n_clusters > n_samples,
    }
    return next((what for what, found in checks.items() if found), None)


def _n_samples(measurement: Measurement) -> int:
    """Samples that the figure stands on: those in its denominator where it has one."""
    return measurement.n_scored if measurement.n_counted is None else measurement.n_counted


def samples_to_settle(rule: Rule, measurement: Measurement | None, judged: Estimate | None) -> int | None:
    """Samples that bring the limit outside the interval if the value stays: intervals shrink as 1/√n."""
    if measurement is None or judged is None or _n_samples(measurement) < 1:
        return None
    if _n_samples(measurement) < rule.min_samples:
        return rule.min_samples
    is_below = judged.value < rule.limit
    reach = judged.interval.high - judged.value if is_below else judged.value - judged.interval.low
    distance = abs(judged.value - rule.limit)
    if distance == 0 or reach < distance:  # no number settles it, or samples are not what is missing
        return None
    return math.ceil(_n_samples(measurement) * (reach / distance) ** 2)
