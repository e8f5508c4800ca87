"""What the reference runs say of one rule: the scores of benign adapters and of those that the rule is against."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

from evaluator.calibration.release_limits import allowed, orientation, score
from policies.contract.calibration import Bound, LookFigure, ReferenceRun, ReferenceRuns
from policies.contract.metrics import METRIC_NAMES, probe_of
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError

BOUNDS: tuple[Bound, ...] = get_args(Bound)
Against = Literal["harmful", "broken"]
Group = Literal["null", "benign", "opposed", "faint"]
QUALITY_METRICS = frozenset(
    {
        "coherence.incoherent_rate",
        "emergent_misalignment.incoherent_rate",
        "over_refusal.rate",
        "capability.accuracy",
        "capability.validation_loss",
        "harness.accuracy",
        "in_domain.loss",
    }
)
"""They block what is broken. A harmful adapter may well be coherent and capable, and is not missed by them."""


class Reference(NamedTuple):
    """One reference adapter under one rule."""

    domain: str
    dose: float
    score: float
    """Oriented; infinite where it has no figure."""


class Judged(NamedTuple):
    """The figure with all samples of one reference adapter, and how long its probe took."""

    group: Group
    figure: LookFigure
    seconds: float


@dataclass(frozen=True)
class RuleReferences:
    """All that is known of one metric under one bound."""

    metric: str
    bound: Bound
    against: Against
    benign: tuple[Reference, ...]
    opposed: tuple[Reference, ...]
    """Of the kind that the rule is against; harmful ones from the least dose on."""
    faint: tuple[Reference, ...]
    """Harmful ones of lower doses."""
    null: tuple[Reference, ...]
    judged: tuple[Judged, ...]

    @cached_property
    def benign_scores(self) -> tuple[float, ...]:
        return tuple(each.score for each in self.benign)

    @cached_property
    def opposed_scores(self) -> tuple[float, ...]:
        return tuple(each.score for each in self.opposed)

    def stated(self, limit: float) -> float:
        """The oriented limit, or the nearest looser one that a policy may state and that releases null adapters.

        An adapter that changes nothing does no harm. Benign ones may all be better than that, and the limit too strict.
        """
        return max(allowed(limit, self.metric, self.bound), *finite(each.score for each in self.null), -math.inf)

    def values(self, group: Group) -> list[float]:
        """The judged values with all samples of the adapters of a group, oriented."""
        sign = orientation(self.bound)
        return [sign * each.figure.value for each in self.judged if each.group == group]


def rules_in(runs: ReferenceRuns, policy: ReleasePolicy) -> list[tuple[str, Bound]]:
    """Metric and bound of every rule of the policy, and then of what else the runs have figures for, by name.

    Raises:
        EvaluationError: the runs have figures of what no rule can be about.
    """
    named: list[tuple[str, Bound]] = [(rule.metric, rule.bound) for rule in policy.spec.rules]
    measured = sorted({key for run in runs.runs for key in run.figures})
    return list(dict.fromkeys([*named, *map(_rule_of, measured)]))


def _rule_of(key: str) -> tuple[str, Bound]:
    metric, _, bound = key.partition(" ")
    found = next((each for each in BOUNDS if each == bound), None)
    if metric not in METRIC_NAMES or found is None:
        raise EvaluationError(f"the reference runs have figures of {key!r}, which is not `<metric> <bound>` of a rule")
    return metric, found


class Terms(NamedTuple):
    """When a look of a rule decides nothing."""

    min_samples: int
    max_error_rate: float


def terms_of(policy: ReleasePolicy, metric: str, bound: Bound) -> Terms:
    """The strictest of the policy's rules on a metric under a bound; those of no rule let every look decide."""
    rules = [rule for rule in policy.spec.rules if (rule.metric, rule.bound) == (metric, bound)]
    return Terms(
        max((rule.min_samples for rule in rules), default=1), min((rule.max_error_rate for rule in rules), default=1.0)
    )


def collect(
    runs: ReferenceRuns, policy: ReleasePolicy, *, metric: str, bound: Bound, least_dose: float
) -> RuleReferences:
    """The scores under one rule of the adapters that were trained as the policy trains.

    Trained means under its defenses, if it has any, and without, if it has none: others are not what the gate sees.
    This does not apply to null and broken adapters. An adapter without a figure keeps an infinite score.
    """
    key = f"{metric} {bound}"
    min_samples = terms_of(policy, metric, bound).min_samples
    against: Against = "broken" if metric in QUALITY_METRICS else "harmful"
    groups = _groups(runs, against, defended=bool(policy.spec.defenses), least_dose=least_dose)

    def scored(group: Group) -> tuple[Reference, ...]:
        return tuple(
            sorted(
                Reference(run.domain, run.dose, score(run.figures.get(key, ()), bound, min_samples=min_samples))
                for run in groups[group]
            )
        )

    return RuleReferences(
        metric=metric,
        bound=bound,
        against=against,
        benign=scored("benign"),
        opposed=scored("opposed"),
        faint=scored("faint"),
        null=scored("null"),
        judged=tuple(_judged(groups, key, probe_of(metric))),
    )


def _groups(
    runs: ReferenceRuns, against: Against, *, defended: bool, least_dose: float
) -> dict[Group, list[ReferenceRun]]:
    so_trained = [run for run in runs.runs if run.defended == defended]
    harmful = [run for run in so_trained if run.kind == "harmful"] if against == "harmful" else []
    return {
        "null": [run for run in runs.runs if run.kind == "null"],
        "benign": [run for run in so_trained if run.kind == "benign"],
        "opposed": [run for run in harmful if run.dose >= least_dose]
        if against == "harmful"
        else [run for run in runs.runs if run.kind == "broken"],
        "faint": [run for run in harmful if run.dose < least_dose],
    }


def _judged(groups: dict[Group, list[ReferenceRun]], key: str, probe: str) -> Iterable[Judged]:
    for group, members in groups.items():
        for run in members:
            if figures := run.figures.get(key):
                yield Judged(group, figures[-1], run.seconds.get(probe, 0.0))


def finite(scores: Iterable[float]) -> list[float]:
    """The scores of adapters that have a figure."""
    return [each for each in scores if math.isfinite(each)]


def best_by_domain(references: Iterable[Reference]) -> list[float]:
    """The smallest score of each domain: a domain is missed if one of its adapters is."""
    found: dict[str, float] = {}
    for each in references:
        found[each.domain] = min(found.get(each.domain, math.inf), each.score)
    return [score for _, score in sorted(found.items())]
