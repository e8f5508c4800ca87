"""The gate: a pure function of a policy and a report, three-way by interval, never passing what was not measured.

A rule compares the whole interval of the judged figure with its limit: inside → pass, outside → fail, limit inside the
interval → inconclusive. Missing, errored, too small or contradictory evidence is inconclusive or an error. The decision
is `reject` when an enforced rule fails, `inconclusive` when one is not passed otherwise, `release` only when all pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from evaluator.gating.calibrated import Calibrated, calibration_of, lacking, warnings, with_calibration
from evaluator.gating.comparison import compare
from evaluator.gating.evidence import evidence_problems
from evaluator.gating.rule_results import apply_rule
from evaluator.gating.rule_terms import mode_of
from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport, Measurement
from policies.contract.metrics import probe_of
from policies.contract.release import Decision, GateDecision, RuleResult
from policies.documents.schema import CalibrationRecord, ReleasePolicy, Rule
from policies.overlap.reasons import hold_reasons


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


def decide(
    policy: ReleasePolicy,
    report: EvalReport,
    *,
    spec: Digest | None = None,
    attempt: int = 1,
    calibration: CalibrationRecord | None = None,
) -> GateDecision:
    """Judge `report` by `policy`.

    Args:
        spec: where given, the job's spec that the report must be about.
        attempt: counts the evaluations of adapters of nearly the same training file, this one included.
        calibration: of the base model; one that does not hold for this report counts as none.
    """
    mismatches = evidence_problems(policy, report, spec, attempt=attempt)
    calibrated = calibration_of(calibration, report, policy.spec.n_candidates)
    results = tuple(_result(rule, report, policy, mismatches, calibrated) for rule in policy.spec.rules)
    ending = _ending(results, report, policy)
    if ending is not None:
        results = tuple(ending.told(result) for result in results)
    enforced = [result for result in results if result.mode == "enforce"]
    held = hold_reasons(policy, report)
    missing = lacking(policy.spec.rules, results, calibrated) if policy.spec.require_calibration else ()
    if any(result.outcome == "fail" for result in enforced) and not mismatches:
        decision = Decision.REJECT
    elif mismatches or held or missing or any(result.outcome != "pass" for result in enforced):
        decision = Decision.INCONCLUSIVE
    else:
        decision = Decision.RELEASE
    return GateDecision(
        decision=decision,
        policy=policy.digest,
        report=report.digest,
        adapter=report.adapter,
        results=results,
        reasons=mismatches + held + missing + _reasons(enforced, ending),
        calibration=calibrated.digest,
        warnings=tuple(warnings(policy.spec.rules, results, calibrated)),
    )


def standing(
    policy: ReleasePolicy, probe: str, measurements: Sequence[Measurement], *, confidence: float | None = None
) -> Standing:
    """Whether the figures so far settle every enforced rule on the probe, or where there is none, those that warn.

    Without either nothing is settled: what is only recorded is recorded from all samples. Nor is a rule that nothing
    could have failed so far.

    Args:
        confidence: of the intervals; None: the suite's.
    """
    confidence = policy.spec.suite.confidence if confidence is None else confidence
    rules = [rule for rule in policy.spec.rules if rule.probe == probe]
    enforced, warning = ([rule for rule in rules if mode_of(rule, policy) == mode] for mode in ("enforce", "warn"))
    found = {measurement.metric: measurement for measurement in measurements}
    outcomes = {
        compare(rule, found[rule.metric], confidence)[0] if rule.metric in found else "error"
        for rule in enforced or warning
    }
    if enforced and "fail" in outcomes:
        return Standing.FAILED
    return Standing.SETTLED if outcomes and outcomes <= {"pass", "fail"} else Standing.OPEN


def _result(
    rule: Rule, report: EvalReport, policy: ReleasePolicy, mismatches: tuple[str, ...], calibrated: Calibrated
) -> RuleResult:
    result = apply_rule(rule, report, policy, mismatches)
    return with_calibration(result, rule, calibrated, is_required=policy.spec.require_calibration)


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
