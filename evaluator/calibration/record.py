"""From the reference runs of a base model to its calibration record: the same runs and policy give the same record."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from evaluator.calibration import learn_then_test, order_statistic, posterior_predictive
from evaluator.calibration.binomial_bounds import share_at_most
from evaluator.calibration.detectable_change import resolution
from evaluator.calibration.order_statistic import Proposal
from evaluator.calibration.references import RuleReferences, collect, finite, rules_in, terms_of
from evaluator.calibration.release_limits import as_stated, released, worst_possible
from evaluator.calibration.usability import why_not_usable, with_alternative
from policies.contract.artifacts import Digest
from policies.contract.calibration import (
    Bound,
    CalibrationSpec,
    Constants,
    DoseMiss,
    FitTargets,
    ReferenceCounts,
    ReferenceRuns,
    RuleCalibration,
    Spread,
)
from policies.contract.metrics import metric_named
from policies.documents.schema import API_VERSION, CalibrationRecord, Metadata, ReleasePolicy

TARGETS = FitTargets()


class About(NamedTuple):
    """What a record says that does not follow from the runs' figures."""

    model: str
    """Name of the base model."""
    finished_at: float
    """Unix seconds."""
    constants: Constants = Constants()


def record_of(
    runs: ReferenceRuns, policy: ReleasePolicy, *, about: About, targets: FitTargets = TARGETS
) -> CalibrationRecord:
    """Calibrate every rule of the policy, and every other metric that the runs have figures for.

    Raises:
        EvaluationError: the runs have figures of what no rule can be about.
    """
    rules = tuple(_rule(runs, policy, metric=m, bound=b, targets=targets) for m, b in rules_in(runs, policy))
    spec = CalibrationSpec(
        model=about.model,
        bound_to=runs.bound_to,
        references=_counts(runs),
        runs=runs.digest,
        targets=targets,
        rules=rules,
        constants=about.constants,
        limits_of_validity=_validity(runs, policy, targets),
        finished_at=about.finished_at,
    )
    metadata = Metadata(
        name=_name(about.model, policy.metadata.name, runs.digest),
        version=time.strftime("%Y.%m.%d", time.gmtime(about.finished_at)),
    )
    return CalibrationRecord(api_version=API_VERSION, kind="CalibrationRecord", metadata=metadata, spec=spec)


def _name(model: str, policy: str, runs: Digest) -> str:
    """Records of one base model lie in one folder, where a name is given once."""
    said = re.sub(r"[^a-z0-9]+", "-", f"{model} {policy}".lower())[:54].strip("-")
    return f"{said or 'base'}-{runs.removeprefix('sha256:')[:8]}"


def _rule(
    runs: ReferenceRuns, policy: ReleasePolicy, *, metric: str, bound: Bound, targets: FitTargets
) -> RuleCalibration:
    references = collect(runs, policy, metric=metric, bound=bound, least_dose=targets.least_dose)
    proposal = order_statistic.propose(references, targets)
    certified = learn_then_test.fit(references, targets)
    worst = worst_possible(metric, bound, runs.base.get(metric), (each.figure.worst for each in references.judged))
    benign = tuple(sorted(as_stated(each, bound) for each in finite(references.benign_scores)))
    harmful = tuple(sorted(as_stated(each, bound) for each in finite(references.opposed_scores)))
    why = with_alternative(why_not_usable(references, proposal, worst=worst, targets=targets), certified, bound)
    return RuleCalibration(
        metric=metric,
        bound=bound,
        unit=metric_named(metric).unit,
        **terms_of(policy, metric, bound)._asdict(),
        against=references.against,
        null=_spread([as_stated(each, bound) for each in references.values("null")]),
        benign=_spread(benign),
        harmful=_spread(harmful),
        benign_limits=benign,
        harmful_limits=harmful,
        benign_without_figure=len(references.benign) - len(benign),
        harmful_without_figure=len(references.opposed) - len(harmful),
        **resolution(references, policy)._asdict(),
        fits=(order_statistic.fit(references, targets), certified, posterior_predictive.fit(references)),
        **_proposed(references, proposal, targets)._asdict(),
        worst_possible=None if worst is None else as_stated(worst, bound),
        usable=not why,
        why=why,
    )


class _Proposed(NamedTuple):
    """The fields of a rule's calibration that speak of the proposed limit; empty where there is none."""

    limit: float | None = None
    false_block_le: float | None = None
    miss_le: float | None = None
    confidence: float | None = None
    false_block_domains_le: float | None = None
    miss_domains_le: float | None = None
    miss_by_dose: tuple[DoseMiss, ...] = ()
    miss_all_doses_le: float | None = None


def _proposed(references: RuleReferences, proposal: Proposal | None, targets: FitTargets) -> _Proposed:
    if proposal is None:
        return _Proposed()
    scores = [each.score for each in (*references.faint, *references.opposed)]
    all_doses = share_at_most(released(scores, proposal.limit), len(scores), error=1 - targets.confidence)
    return _Proposed(
        limit=as_stated(proposal.limit, references.bound),
        false_block_le=proposal.false_block_le,
        miss_le=proposal.miss_le,
        confidence=targets.confidence,
        false_block_domains_le=proposal.false_block_domains_le,
        miss_domains_le=proposal.miss_domains_le,
        miss_by_dose=_by_dose(references, proposal, targets),
        miss_all_doses_le=None if references.against == "broken" else all_doses,
    )


def _spread(figures: Sequence[float]) -> Spread | None:
    if not figures:
        return None
    return Spread(n=len(figures), min=min(figures), median=median(figures), max=max(figures))


def _by_dose(references: RuleReferences, proposal: Proposal, targets: FitTargets) -> tuple[DoseMiss, ...]:
    """From the lowest dose on; rules against broken adapters have none."""
    if references.against == "broken":
        return ()
    scores = defaultdict(list)
    for each in (*references.faint, *references.opposed):
        scores[each.dose].append(each.score)
    return tuple(
        DoseMiss(
            dose=dose,
            adapters=len(found),
            missed=(missed := released(found, proposal.limit)),
            miss_le=share_at_most(missed, len(found), error=1 - targets.confidence),
        )
        for dose, found in sorted(scores.items())
    )


def _counts(runs: ReferenceRuns) -> ReferenceCounts:
    kinds = Counter(run.kind for run in runs.runs)
    return ReferenceCounts(
        null=kinds["null"],
        benign=kinds["benign"],
        harmful=kinds["harmful"],
        broken=kinds["broken"],
        organism=kinds["organism"],
        seeds=max(1, len({run.seed for run in runs.runs})),
    )


def _validity(runs: ReferenceRuns, policy: ReleasePolicy, targets: FitTargets) -> str:
    trained = "under the policy's defenses" if policy.spec.defenses else "without defenses"
    used = [run for run in runs.runs if run.defended == bool(policy.spec.defenses)]
    domains = {kind: len({run.domain for run in used if run.kind == kind}) for kind in ("benign", "harmful")}
    return (
        f"The rates hold for adapters like the references that were trained {trained}: {domains['benign']} benign and "
        f"{domains['harmful']} harmful domains, harmful rows from {targets.least_dose:.0%} of the training file on; "
        "misses at lower doses are reported apart (miss_by_dose) and can be far more frequent. Adapters of one domain "
        "count as independent, except in the figures by domain. Nothing is said of other kinds of harm, nor of tenants "
        "who adapt to the gate"
    )
