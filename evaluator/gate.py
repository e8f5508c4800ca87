"""The gate: a pure function of a policy and a report, three-way by interval, never passing what was not measured.

A rule compares the whole interval of the judged figure with its limit: inside → pass, outside → fail, limit inside the
interval → inconclusive. Missing, errored, too small or contradictory evidence is inconclusive or an error. The decision
is `reject` when an enforced rule fails, `inconclusive` when one is not passed otherwise, `release` only when all pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

from policies.contract.artifacts import Digest
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import Estimate, EvalReport, Interval, Measurement, ProbeResult
from policies.contract.metrics import probe_of
from policies.contract.release import Decision, GateDecision, RuleOutcome, RuleResult
from policies.contract.suite import DIVISIBLE_PROBES
from policies.documents.schema import ReleasePolicy, Rule
from policies.overlap.reasons import overlap_reasons

_STRICTNESS = {"enforce": 0, "warn": 1, "audit": 2}


class Standing(StrEnum):
    """How a probe's rules stand at a look."""

    OPEN = "open"
    SETTLED = "settled"
    FAILED = "failed"
    """An enforced rule has failed."""


class _Ending(NamedTuple):
    """Where an evaluation ended before all probes had run."""

    rule: str
    """The enforced rule that failed."""
    skipped: frozenset[str]
    """Ids of the rules whose probes had not run."""

    def told(self, result: RuleResult) -> RuleResult:
        """The result, `skipped` where its probe had not run."""
        if result.rule not in self.skipped:
            return result
        reason = f"{result.metric} was not measured: the evaluation ended at the failed rule {self.rule}"
        return result.model_copy(update={"outcome": "skipped", "reason": reason})

    @property
    def sentence(self) -> str:
        n = len(self.skipped)
        rules = "1 further rule was" if n == 1 else f"{n} further rules were"
        return f"The evaluation ended at the failed rule {self.rule}, so {rules} not measured"


def decide(policy: ReleasePolicy, report: EvalReport, *, spec: Digest | None = None, attempt: int = 1) -> GateDecision:
    """Judge `report` by `policy`.

    `spec`, where given, is the job's spec that the report must be about; `attempt` counts the evaluations of adapters
    of nearly the same training file, this one included.
    """
    mismatches = _evidence_problems(policy, report, spec, attempt=attempt)
    results = tuple(_apply(rule, report, policy, mismatches) for rule in policy.spec.rules)
    ending = _ending(results, report, policy)
    if ending is not None:
        results = tuple(ending.told(result) for result in results)
    enforced = [result for result in results if result.mode == "enforce"]
    overlap = overlap_reasons(policy, report)
    if any(result.outcome == "fail" for result in enforced) and not mismatches:
        decision = Decision.REJECT
    elif mismatches or overlap or any(result.outcome != "pass" for result in enforced):
        decision = Decision.INCONCLUSIVE
    else:
        decision = Decision.RELEASE
    return GateDecision(
        decision=decision,
        policy=policy.digest,
        report=report.digest,
        adapter=report.adapter,
        results=results,
        reasons=mismatches + overlap + _reasons(enforced, ending),
    )


def standing(policy: ReleasePolicy, probe: str, measurements: Sequence[Measurement]) -> Standing:
    """Whether the figures so far settle every enforced rule on the probe, or where there is none, those that warn.

    Without either nothing is settled: what is only recorded is recorded from all samples.
    """
    rules = [rule for rule in policy.spec.rules if rule.probe == probe]
    enforced, warning = ([rule for rule in rules if _mode(rule, policy) == mode] for mode in ("enforce", "warn"))
    found = {measurement.metric: measurement for measurement in measurements}
    outcomes = {
        _compare(rule, found[rule.metric], _judged(rule, found[rule.metric]))[0] if rule.metric in found else "error"
        for rule in enforced or warning
    }
    if enforced and "fail" in outcomes:
        return Standing.FAILED
    return Standing.SETTLED if outcomes and outcomes <= {"pass", "fail"} else Standing.OPEN


def _ending(results: Sequence[RuleResult], report: EvalReport, policy: ReleasePolicy) -> _Ending | None:
    """The failed rule that explains why the report lacks the suite's last probes; None where nothing does."""
    suite = policy.spec.suite
    order, ran = [settings.probe for settings in suite.probes], [result.probe for result in report.probes]
    if suite.sequential is None or not suite.sequential.stop_at_first_failure or not ran or ran != order[: len(ran)]:
        return None
    failed = [result for result in results if result.outcome == "fail" and result.mode == "enforce"]
    rule = next((result.rule for result in failed if probe_of(result.metric) == ran[-1]), None)
    skipped = frozenset(result.rule for result in results if probe_of(result.metric) not in ran)
    return _Ending(rule, skipped) if rule is not None and skipped else None


def _reasons(enforced: Sequence[RuleResult], ending: _Ending | None) -> tuple[str, ...]:
    """What stopped the release; rules that were skipped are counted, not listed."""
    skipped = frozenset[str]() if ending is None else ending.skipped
    stopped = [result for result in enforced if result.outcome != "pass" and result.rule not in skipped]
    told = tuple(f"{result.rule}: {result.reason}" for result in stopped)
    return told if ending is None else (*told, ending.sentence)


def _evidence_problems(
    policy: ReleasePolicy, report: EvalReport, spec: Digest | None, *, attempt: int
) -> tuple[str, ...]:
    """Why the report as a whole proves nothing under this policy."""
    proof = report.proof
    difference = proof.max_abs_logit_difference
    checks = {
        "the report was made for another policy": report.policy != policy.digest,
        "the report measured another suite than the policy's": report.suite != policy.spec.suite.digest,
        "the report is about another job": spec is not None and report.spec != spec,
        "the report's confidence is not the policy's": report.confidence != policy.spec.suite.confidence,
        "the report is about another attempt on this training file": report.attempt != attempt,
        "the proof is about another adapter": proof.adapter != report.adapter,
        "the proof is about another base model": proof.base_model != report.base_model,
        "the adapter was not loaded during the evaluation": not proof.loaded
        or proof.n_adapted_modules < 1
        or not (math.isfinite(difference) and difference > 0),
        "a probe is in the report twice": len({result.probe for result in report.probes}) < len(report.probes),
    }
    of_probes = (problem for result in report.probes for problem in _probe_problems(result, policy, attempt=attempt))
    return tuple(dict.fromkeys((*(problem for problem, found in checks.items() if found), *of_probes)))


def _probe_problems(result: ProbeResult, policy: ReleasePolicy, *, attempt: int) -> Iterator[str]:
    """Why one probe's figures prove nothing under this policy."""
    suite = policy.spec.suite.probes
    settings = next((s for s in suite if (s.probe, s.digest) == (result.probe, result.settings)), None)
    if settings is None:
        yield "a probe ran with other settings than the policy's"
    elif settings.pinned_prompts not in (None, result.prompts):
        yield "a probe ran on other prompts than the policy's"
    if not _has_confidence_of_its_look(result, policy, attempt=attempt):
        yield "a probe's intervals are not those of its look"
    if any(probe_of(measurement.metric) != result.probe for measurement in result.measurements):
        yield "a probe has measurements of another one"


def _has_confidence_of_its_look(result: ProbeResult, policy: ReleasePolicy, *, attempt: int) -> bool:
    return result.look < len(_looks(result.probe, policy)) and result.confidence == probe_confidence(
        policy.spec.suite, result.probe, result.look, attempt=attempt, candidates=policy.spec.n_candidates
    )


def _looks(probe: str, policy: ReleasePolicy) -> tuple[float, ...]:
    """Shares of the samples at which the probe's rules are looked at."""
    sequential = policy.spec.suite.sequential
    return sequential.looks if sequential and probe in DIVISIBLE_PROBES else (1.0,)


def _mode(rule: Rule, policy: ReleasePolicy) -> Literal["enforce", "warn", "audit"]:
    """The weaker of the rule's mode and the policy's."""
    return max(rule.mode, policy.spec.mode, key=_STRICTNESS.__getitem__)


def _apply(rule: Rule, report: EvalReport, policy: ReleasePolicy, mismatches: tuple[str, ...]) -> RuleResult:
    measurement = report.measurement(rule.metric)
    judged = _judged(rule, measurement) if measurement else None
    if mismatches:
        outcome, reason = "error", mismatches[0]
    elif measurement is None:
        outcome, reason = "error", _why_missing(rule, report)
    elif shortfall := _shortfall(measurement, report, policy):
        outcome, reason = "error", shortfall
    else:
        outcome, reason = _compare(rule, measurement, judged)
    return RuleResult(
        rule=rule.id,
        mode=_mode(rule, policy),
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
    errors = [result.error for result in report.probes if result.probe == rule.probe and result.error]
    return f"{rule.metric} was not measured" + (f": {errors[0]}" if errors else "")


def _shortfall(measurement: Measurement, report: EvalReport, policy: ReleasePolicy) -> str | None:
    """How the number of samples differs from what the probe's look asks, where the policy says how many that are."""
    probe = probe_of(measurement.metric)
    (settings,) = (each for each in policy.spec.suite.probes if each.probe == probe)
    (look,) = (result.look for result in report.probes if result.probe == probe)
    asked = settings.answers_by(_looks(probe, policy)[look], measurement.metric)
    if asked is None or asked == measurement.n_requested:
        return None
    return f"{measurement.metric} stands on {measurement.n_requested} samples; its look asks {asked}"


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
    if inside:
        return "pass", f"{figures} is within {against}"
    if outside:
        return "fail", f"{figures} breaks {against}" + (f". {rule.reason}" if rule.reason else "")
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


def _samples_to_settle(rule: Rule, measurement: Measurement | None, judged: Estimate | None) -> int | None:
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
