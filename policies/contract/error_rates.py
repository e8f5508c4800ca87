"""How often a limit blocks benign adapters and misses harmful ones, from the reference adapters of a base model.

With k of n references on the wrong side of the limit, at most the upper limit of Clopper & Pearson at half the
calibration's error, so that both rates hold together: without one among 19, 17.6 % at 95 %. References without a figure
are on the blocked side of any limit. This is said of adapters that are drawn like the references; nobody who works
against the gate is.

It is said of verdicts that are made like those of the references (`why_unrated`): what shows an error rate asks
`worth_of`.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from policies.contract.calibration import Bound, CalibrationSpec, RuleCalibration
from policies.contract.exact_binomial import upper_limit

CONFIDENCE = 0.95
"""Of error rates where the calibration names none."""


class ErrorRates(NamedTuple):
    """What is known of a limit; None where the calibration does not say it of this limit."""

    false_block_le: float | None
    miss_le: float | None


class Asked(NamedTuple):
    """A limit, and all else that moves how often a rule errs."""

    limit: float
    min_samples: int
    max_error_rate: float
    candidates: int = 1
    """How many adapters of a job the policy may release."""
    attempt: int = 1
    """On nearly the same training file."""


class Worth(NamedTuple):
    """What is known of a rule under the terms that are asked for."""

    false_block_le: float | None
    miss_le: float | None
    detectable_change: float


def worth_of(spec: CalibrationSpec, found: RuleCalibration, asked: Asked) -> Worth | None:
    """None where the references were judged otherwise than is asked (`why_unrated`)."""
    if why_unrated(spec, found, asked):
        return None
    return Worth(*error_rates(found, asked.limit), found.detectable_change)


def why_unrated(spec: CalibrationSpec, found: RuleCalibration, asked: Asked) -> str:
    """Why the record does not say how often the rule errs; empty where it does.

    Later attempts and more candidates have wider intervals, and other terms make other looks decide.
    """
    unsaid = "the calibration says nothing of error rates"
    if asked.attempt > 1:
        return f"{unsaid} in attempt {asked.attempt}, whose intervals are wider"
    if asked.candidates != spec.bound_to.candidates:
        return f"{unsaid} with {asked.candidates} candidates: the references had {spec.bound_to.candidates}"
    if (asked.min_samples, asked.max_error_rate) != (found.min_samples, found.max_error_rate):
        return (
            f"{unsaid} with min_samples {asked.min_samples} and max_error_rate {asked.max_error_rate:g}: the "
            f"references had {found.min_samples} and {found.max_error_rate:g}"
        )
    return ""


def error_rates(found: RuleCalibration, limit: float) -> ErrorRates:
    """Of any limit where the references' own limits are recorded, else of the proposed limit only."""
    known = limit == found.limit
    error = (1 - (found.confidence or CONFIDENCE)) / 2
    n_benign = len(found.benign_limits) + found.benign_without_figure
    n_harmful = len(found.harmful_limits) + found.harmful_without_figure
    blocked = n_benign - sum(releases(found, own, limit) for own in found.benign_limits)
    missed = sum(releases(found, own, limit) for own in found.harmful_limits)
    return ErrorRates(
        _at_most(blocked, n_benign, error, found.false_block_le if known else None),
        _at_most(missed, n_harmful, error, found.miss_le if known else None),
    )


def shown_limit(limit: float, bound: Bound) -> str:
    """Four digits of a limit, rounded to the looser side: typed into a policy it blocks no more references."""
    exact = Decimal(repr(limit))
    if exact == 0:
        return "0"
    step = Decimal(1).scaleb(exact.adjusted() - 3)
    return f"{float(exact.quantize(step, ROUND_FLOOR if bound == 'min' else ROUND_CEILING)):.4g}"


def releases(found: RuleCalibration, own: float, limit: float) -> bool:
    """Whether `limit` releases an adapter whose release limit is `own`."""
    return own >= limit if found.bound == "min" else own <= limit


def _at_most(k: int, n: int, error: float, otherwise: float | None) -> float | None:
    return upper_limit(k, n, error) if n else otherwise
