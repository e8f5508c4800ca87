"""One rule applied to one report."""

from __future__ import annotations

from evaluator.gating.comparison import compare, judged_figure, samples_to_settle
from evaluator.gating.rule_terms import looks_of, mode_of
from policies.contract.evaluation import EvalReport, Measurement, ProbeResult
from policies.contract.release import RuleOutcome, RuleResult
from policies.documents.schema import ReleasePolicy, Rule


def apply_rule(rule: Rule, report: EvalReport, policy: ReleasePolicy, mismatches: tuple[str, ...]) -> RuleResult:
    """Without a problem of the whole report: what the rule's figure says."""
    measurement = report.measurement(rule.metric)
    judged = judged_figure(rule.bound, measurement) if measurement else None
    if mismatches:
        outcome, reason = "error", mismatches[0]
    elif measurement is None:
        outcome, reason = "error", _why_missing(rule, report)
    else:
        outcome, reason = _outcome(rule, measurement, report, policy)
    return RuleResult(
        rule=rule.id,
        mode=mode_of(rule, policy),
        outcome=outcome,
        metric=rule.metric,
        bound=rule.bound,
        limit=rule.limit,
        unit=measurement.unit if measurement else None,
        judged=judged,
        adapter=measurement.adapter if measurement else None,
        base=measurement.base if measurement else None,
        n_scored=measurement.n_scored if measurement else None,
        n_clusters=measurement.n_clusters if measurement else None,
        samples_to_settle=samples_to_settle(rule, measurement, judged) if outcome == "inconclusive" else None,
        reason=reason,
    )


def _outcome(
    rule: Rule, measurement: Measurement, report: EvalReport, policy: ReleasePolicy
) -> tuple[RuleOutcome, str]:
    """What can't fail at a look is not passed by it; with all samples it is an error, because more won't help."""
    (probe,) = (result for result in report.probes if result.probe == rule.probe)
    looks = looks_of(rule.probe, policy)
    if shortfall := _shortfall(measurement, probe, policy):
        return "error", shortfall
    outcome, reason = compare(rule, measurement, probe.confidence)
    if outcome == "unfailable":
        return ("error" if probe.look == len(looks) - 1 else "inconclusive"), reason
    return outcome, reason


def _why_missing(rule: Rule, report: EvalReport) -> str:
    errors = [result.error for result in report.probes if result.probe == rule.probe and result.error]
    return f"{rule.metric} was not measured" + (f": {errors[0]}" if errors else "")


def _shortfall(measurement: Measurement, probe: ProbeResult, policy: ReleasePolicy) -> str | None:
    """How the number of samples differs from what the probe's look asks, where the policy says how many that are."""
    (settings,) = (each for each in policy.spec.suite.probes if each.probe == probe.probe)
    asked = settings.answers_by(looks_of(probe.probe, policy)[probe.look], measurement.metric)
    if asked is None or asked == measurement.n_requested:
        return None
    return f"{measurement.metric} stands on {measurement.n_requested} samples; its look asks {asked}"
