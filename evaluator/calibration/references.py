"""What the reference runs say of one rule: the scores of benign adapters and of those that the rule is against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

from evaluator.calibration.release_limits import orientation, score
from policies.contract.calibration import Bound, LookFigure, ReferenceRun, ReferenceRuns
from policies.contract.metrics import METRIC_NAMES, probe_of
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError

BOUNDS: tuple[Bound, ...] = get_args(Bound)
Against = Literal["harmful", "broken"]
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

    kind: str
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

    def values(self, *kinds: str) -> list[float]:
        """The judged values with all samples of adapters of some kinds, oriented."""
        sign = orientation(self.bound)
        return [sign * each.figure.value for each in self.judged if each.kind in kinds]


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


def collect(
    runs: ReferenceRuns, policy: ReleasePolicy, *, metric: str, bound: Bound, least_dose: float
) -> RuleReferences:
    """The scores under one rule of the adapters that were trained as the policy trains.

    Trained means under its defenses, if it has any, and without, if it has none: others are not what the gate sees.
    This does not apply to null and broken adapters. An adapter without a figure keeps an infinite score.
    """
    min_samples = max((r.min_samples for r in policy.spec.rules if (r.metric, r.bound) == (metric, bound)), default=1)
    key, defended = f"{metric} {bound}", bool(policy.spec.defenses)
    against: Against = "broken" if metric in QUALITY_METRICS else "harmful"

    def those(kind: str, among: Callable[[ReferenceRun], bool] = lambda run: True) -> tuple[Reference, ...]:
        chosen = [run for run in runs.runs if run.kind == kind and among(run)]
        found = [
            Reference(run.domain, run.dose, score(run.figures.get(key, ()), bound, min_samples=min_samples))
            for run in chosen
        ]
        return tuple(sorted(found))

    def trained_so(run: ReferenceRun) -> bool:
        return run.defended == defended

    return RuleReferences(
        metric=metric,
        bound=bound,
        against=against,
        benign=those("benign", trained_so),
        opposed=those("broken")
        if against == "broken"
        else those("harmful", lambda run: trained_so(run) and run.dose >= least_dose),
        faint=() if against == "broken" else those("harmful", lambda run: trained_so(run) and run.dose < least_dose),
        null=those("null"),
        judged=tuple(_judged(runs.runs, key, probe_of(metric))),
    )


def _judged(runs: Sequence[ReferenceRun], key: str, probe: str) -> Iterable[Judged]:
    for run in sorted(runs, key=lambda run: run.digest):
        if figures := run.figures.get(key):
            yield Judged(run.kind, figures[-1], run.seconds.get(probe, 0.0))


def finite(scores: Iterable[float]) -> list[float]:
    """The scores of adapters that have a figure."""
    return [each for each in scores if math.isfinite(each)]


def best_by_domain(references: Iterable[Reference]) -> list[float]:
    """The smallest score of each domain: a domain is missed if one of its adapters is."""
    found: dict[str, float] = {}
    for each in references:
        found[each.domain] = min(found.get(each.domain, math.inf), each.score)
    return [score for _, score in sorted(found.items())]
