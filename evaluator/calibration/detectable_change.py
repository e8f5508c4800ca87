"""What a rule can tell apart with its samples: the standard error and the smallest change that is mostly settled.

    detectable change = (z of 1 − α + z of 0.8) · standard error

α is the error of one side of the interval with all samples, as the suite's looks share it out (`error_budget`), divided
by the number K of enforced rules, so that with probability 0.8 a change of this size is told from none while none of K
rules errs. (z of 0.8 = 0.842.) The standard error is measured: half the interval's width over the z of its confidence.
Intervals that are exact or skewed are not quite symmetrical, so this is a mean of both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median
from typing import NamedTuple

import numpy as np

from evaluator.calibration.references import RuleReferences
from policies.contract.calibration import LookFigure
from policies.contract.error_budget import probe_confidence
from policies.contract.metrics import probe_of
from policies.contract.suite import DIVISIBLE_PROBES
from policies.documents.schema import ReleasePolicy

POWER = 0.8
_NORMAL = NormalDist()


class Resolution(NamedTuple):
    """What a rule can tell, and what that takes."""

    standard_error: float
    detectable_change: float
    samples: int
    samples_needed: int | None
    """For half the gap; None where there is none."""
    seconds: float


def last_confidence(policy: ReleasePolicy, probe: str) -> float:
    """Confidence of a probe's intervals with all samples, in a first attempt."""
    sequential = policy.spec.suite.sequential
    last = len(sequential.looks) - 1 if sequential and probe in DIVISIBLE_PROBES else 0
    return probe_confidence(policy.spec.suite, probe, last, candidates=policy.spec.n_candidates)


def factor(policy: ReleasePolicy, probe: str) -> float:
    """z of 1 − α + z of 0.8."""
    enforced = sum(rule.mode == "enforce" for rule in policy.spec.rules)
    error = (1 - last_confidence(policy, probe)) / 2 / max(1, enforced)
    return _NORMAL.inv_cdf(1 - error) + _NORMAL.inv_cdf(POWER)


def standard_error(figure: LookFigure, confidence: float) -> float:
    """Of a figure whose interval has this confidence, two-sided."""
    return (figure.high - figure.low) / 2 / _NORMAL.inv_cdf((1 + confidence) / 2)


def gap(benign: Sequence[float], harmful: Sequence[float]) -> float:
    """From the quartile of oriented benign values that faces the harmful ones to the quartile of those; ≤ 0 if none."""
    if not benign or not harmful:
        return 0.0
    return float(np.quantile(harmful, 0.25) - np.quantile(benign, 0.75))


def resolution(references: RuleReferences, policy: ReleasePolicy) -> Resolution:
    """Medians over all reference adapters that have a figure; zeros where none has."""
    probe = probe_of(references.metric)
    confidence = last_confidence(policy, probe)
    judged = references.judged
    if not judged:
        return Resolution(0.0, 0.0, 0, None, 0.0)
    error = median(standard_error(each.figure, confidence) for each in judged)
    samples = int(median(each.figure.n for each in judged))
    detectable = factor(policy, probe) * error
    half = gap(references.values("benign"), references.values("opposed")) / 2
    needed = max(1, math.ceil(samples * (detectable / half) ** 2)) if half > 0 else None
    return Resolution(error, detectable, samples, needed, median(each.seconds for each in judged))
