"""The gate: a pure function of a policy and a report, three-way by interval, never passing what was not measured.

A rule compares the whole interval of the judged figure with its limit: inside → pass, outside → fail, limit inside the
interval → inconclusive. Missing, errored, too small or contradictory evidence is inconclusive or an error. The decision
is `reject` when an enforced rule fails, `inconclusive` when one is not passed otherwise, `release` only when all pass.
"""

from __future__ import annotations

import math

from policies.contract.artifacts import Digest
from policies.contract.evaluation import Estimate, EvalReport, Interval, Measurement
from policies.contract.release import Decision, GateDecision, RuleOutcome, RuleResult
from policies.schema import ReleasePolicy, Rule

_STRICTNESS = {"enforce": 0, "warn": 1, "audit": 2}


def decide(policy: ReleasePolicy, report: EvalReport, *, spec: Digest | None = None) -> GateDecision:
    """Judge `report` by `policy`. `spec`, where given, is the job's spec that the report must be about."""
    mismatches = _evidence_problems(policy, report, spec)
    results = tuple(_apply(rule, report, policy, mismatches) for rule in policy.spec.rules)
    enforced = [result for result in results if result.mode == "enforce"]
    if any(result.outcome == "fail" for result in enforced) and not mismatches:
        decision = Decision.REJECT
    elif mismatches or any(result.outcome != "pass" for result in enforced):
        decision = Decision.INCONCLUSIVE
    else:
        decision = Decision.RELEASE
    stopped = tuple(f"{result.rule}: {result.reason}" for result in enforced if result.outcome != "pass")
    return GateDecision(
        decision=decision,
        policy=policy.digest,
        report=report.digest,
        adapter=report.adapter,
        results=results,
        reasons=mismatches + stopped if decision is not Decision.RELEASE else (),
    )


def _evidence_problems(policy: ReleasePolicy, report: EvalReport, spec: Digest | None) -> tuple[str, ...]:
    """Why the report as a whole proves nothing under this policy."""
    proof = report.proof
    difference = proof.max_abs_logit_difference
    checks = {
        "the report was made for another policy": report.policy != policy.digest,
        "the report measured another suite than the policy's": report.suite != policy.spec.suite.digest,
        "the report is about another job": spec is not None and report.spec != spec,
        "the report's confidence is not the policy's": report.confidence != policy.spec.suite.confidence,
        "the proof is about another adapter": proof.adapter != report.adapter,
        "the proof is about another base model": proof.base_model != report.base_model,
        "a probe ran with other settings than the policy's": not {result.settings for result in report.probes}
        <= {settings.digest for settings in policy.spec.suite.probes},
        "the adapter was not loaded during the evaluation": not proof.loaded
        or proof.n_adapted_modules < 1
        or not (math.isfinite(difference) and difference > 0),
    }
    return tuple(problem for problem, found in checks.items() if found)


def _apply(rule: Rule, report: EvalReport, policy: ReleasePolicy, mismatches: tuple[str, ...]) -> RuleResult:
    measurement = report.measurement(rule.metric)
    judged = _judged(rule, measurement) if measurement else None
    if mismatches:
        outcome, reason = "error", mismatches[0]
    elif measurement is None:
        outcome, reason = "error", _why_missing(rule, report)
    else:
        outcome, reason = _compare(rule, measurement, judged)
    mode = max(rule.mode, policy.spec.mode, key=_STRICTNESS.__getitem__)
    return RuleResult(
        rule=rule.id,
        mode=mode,
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
        samples_to_settle=_samples_to_settle(rule, measurement, judged) if outcome == "inconclusive" else None,
        reason=reason,
    )


def _why_missing(rule: Rule, report: EvalReport) -> str:
    probe = rule.metric.partition(".")[0]
    errors = [result.error for result in report.probes if result.probe == probe and result.error]
    return f"{rule.metric} was not measured" + (f": {errors[0]}" if errors else "")


def _judged(rule: Rule, measurement: Measurement) -> Estimate | None:
    """The figure that the limit speaks of: the value, the increase over base, or the drop from base."""
    if rule.bound in ("max", "min"):
        return measurement.adapter
    if measurement.difference is None or rule.bound == "max_increase_over_base":
        return measurement.difference
    change = measurement.difference
    return Estimate(value=-change.value, interval=Interval(low=-change.interval.high, high=-change.interval.low))


def _compare(rule: Rule, measurement: Measurement, judged: Estimate | None) -> tuple[RuleOutcome, str]:
    if judged is None or not all(map(math.isfinite, (judged.value, judged.interval.low, judged.interval.high))):
        return "error", f"{rule.metric} has no finite figure to compare with {rule.bound}"
    if not judged.interval.low <= judged.value <= judged.interval.high:
        return "error", f"{rule.metric}: the value {judged.value:.4g} lies outside its own interval"
    if measurement.n_scored + measurement.n_errored > measurement.n_requested:
        return "error", f"{rule.metric} counts more samples than were requested"
    if measurement.n_scored < rule.min_samples:
        return "inconclusive", f"{measurement.n_scored} scored samples, {rule.min_samples} needed"
    if measurement.n_errored > rule.max_error_rate * measurement.n_requested:
        return "inconclusive", f"{measurement.n_errored} of {measurement.n_requested} samples errored"
    low, high = judged.interval.low, judged.interval.high
    is_floor = rule.bound == "min"
    inside = low >= rule.limit if is_floor else high <= rule.limit
    outside = high < rule.limit if is_floor else low > rule.limit
    figures = f"{rule.metric} {judged.value:+.4f} [{low:+.4f}, {high:+.4f}] {measurement.unit}"
    against = f"{rule.bound} {rule.limit:g}"
    if inside:
        return "pass", f"{figures} is within {against}"
    if outside:
        return "fail", f"{figures} breaks {against}" + (f". {rule.reason}" if rule.reason else "")
    return "inconclusive", f"{figures} has {against} inside its interval"


def _samples_to_settle(rule: Rule, measurement: Measurement | None, judged: Estimate | None) -> int | None:
    """Samples that bring the limit outside the interval if the value stays: intervals shrink as 1/√n."""
    if measurement is None or judged is None or measurement.n_scored < 1:
        return None
    if measurement.n_scored < rule.min_samples:
        return rule.min_samples
    is_below = judged.value < rule.limit
    reach = judged.interval.high - judged.value if is_below else judged.value - judged.interval.low
    distance = abs(judged.value - rule.limit)
    if distance == 0 or reach < distance:  # no number settles it, or samples are not what is missing
        return None
    return math.ceil(measurement.n_scored * (reach / distance) ** 2)
