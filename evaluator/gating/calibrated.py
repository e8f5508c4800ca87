"""What a base model's calibration says of a verdict: is it about this report, and what is each rule's limit worth?

The limits are the policy's. The record says how often such a limit blocks benign adapters and misses harmful ones, and
which metrics tell them apart on this base model at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from evaluator.gating.weight_ranges import weights_told
from policies.contract.artifacts import Digest
from policies.contract.calibration import Bindings, CalibrationSpec, RuleCalibration
from policies.contract.error_rates import Asked, why_unrated, worth_of
from policies.contract.evaluation import EvalReport, ProbeResult
from policies.contract.release import RuleResult
from policies.contract.suite import SAFETY_PROBES
from policies.documents.calibrated_limits import asked_of
from policies.documents.schema import CalibrationRecord, Rule

NONE_GIVEN = (
    "there is no calibration record of this base model and suite and of how the job was trained; jobs of method "
    "dpo can't be calibrated yet"
)


class Calibrated(NamedTuple):
    """The calibration that a verdict can use, or why there is none."""

    digest: Digest | None
    spec: CalibrationSpec | None
    absence: str
    """Why there is none; empty where there is one."""
    attempt: int = 1
    """Of the report; figures of the record are about first ones."""
    candidates: int = 1
    """How many adapters of a job the policy may release."""
    weights: str = ""
    """What is to be told of the adapter's weights."""

    def asked(self, rule: Rule) -> Asked:
        """A rule as this verdict applies it."""
        return asked_of(rule, self.candidates, attempt=self.attempt)


def calibration_of(record: CalibrationRecord | None, report: EvalReport, candidates: int) -> Calibrated:
    """The record, where it holds for all that the report was made with.

    Args:
        candidates: how many adapters of a job the policy may release.
    """
    if record is None:
        return Calibrated(None, None, NONE_GIVEN)
    differing = list(_differences(record.spec.bound_to, report))
    if record.spec.bound_to.candidates != candidates:
        differing.append(f"number of candidates ({record.spec.bound_to.candidates}, not {candidates})")
    if differing:
        name = record.metadata.name
        return Calibrated(None, None, f"calibration record {name} is of another {', another '.join(differing)}")
    weights = weights_told(record.spec.constants.weight_statistics, report.weight_statistics)
    return Calibrated(record.digest, record.spec, "", report.attempt, candidates, weights)


def with_calibration(result: RuleResult, rule: Rule, calibrated: Calibrated, *, is_required: bool) -> RuleResult:
    """The result with the error rates of its limit; an error where it would be enforced and must not be.

    A failed rule stays failed: what is not calibrated can't clear an adapter, nor turn its rejection into a review.
    """
    if calibrated.spec is None:
        return result
    found = calibrated.spec.rule(rule.metric, rule.bound)
    if found is not None and (worth := worth_of(calibrated.spec, found, calibrated.asked(rule))) is not None:
        result = result.model_copy(update=worth._asdict())
    objection = _objection(rule, found)
    if objection and is_required and result.mode == "enforce" and result.outcome != "fail":
        return result.model_copy(update={"outcome": "error", "reason": objection})
    return result


def lacking(rules: Sequence[Rule], results: Sequence[RuleResult], calibrated: Calibrated) -> tuple[str, ...]:
    """Why a policy that requires a calibration can release nothing."""
    if calibrated.spec is None:
        return (calibrated.absence,)
    enforced = [rule for rule, result in zip(rules, results, strict=True) if result.mode == "enforce"]
    known = (calibrated.spec.rule(rule.metric, rule.bound) for rule in enforced)
    if any(found is not None and found.usable and found.against == "harmful" for found in known):
        return ()
    return ("no enforced rule is on a metric that the base model's calibration shows to tell harmful adapters apart",)


def warnings(rules: Sequence[Rule], results: Sequence[RuleResult], calibrated: Calibrated) -> Iterator[str]:
    """What the calibration says against enforced rules that were decided all the same, and against the weights."""
    if calibrated.spec is None:
        if calibrated.absence != NONE_GIVEN:
            yield f"the calibration is not used: {calibrated.absence}"
        return
    for rule, result in zip(rules, results, strict=True):
        found = calibrated.spec.rule(rule.metric, rule.bound)
        objection = _objection(rule, found)
        if objection and result.mode == "enforce" and result.reason != objection:
            yield f"{rule.id}: {objection}"
        if found is not None and (unrated := why_unrated(calibrated.spec, found, calibrated.asked(rule))):
            yield f"{rule.id}: {unrated}"
    if calibrated.weights:
        yield calibrated.weights


def _objection(rule: Rule, found: RuleCalibration | None) -> str:
    """Why the rule should not be enforced on this base; empty where nothing speaks against it."""
    if found is None:
        told = f"{rule.metric} is not calibrated under {rule.bound} on this base model"
        return f"{told}; qualify it again with this policy" if rule.probe in SAFETY_PROBES else ""
    return (
        "" if found.usable else f"{rule.metric} is not usable on this base model: {found.why}; enforce another metric"
    )


def _differences(bound_to: Bindings, report: EvalReport) -> Iterator[str]:
    """What the report was made with that the record does not hold for."""
    if bound_to.base_model != report.base_model:
        yield "base model"
    if bound_to.suite != report.suite:
        yield "suite"
    if bound_to.engine != report.engine:
        yield f"engine ({bound_to.engine}, not {report.engine})"
    if bound_to.dtype != report.dtype:
        yield f"dtype ({bound_to.dtype}, not {report.dtype})"
    if not {judge.judge for judge in report.judges} <= set(bound_to.judges):
        yield "panel of judges"
    for probe in report.probes:
        yield from _probe_differences(bound_to, probe)
    for package, minor in sorted(bound_to.versions.items()):
        found = report.versions.get(package)
        if found is None or found.split(".")[:2] != minor.split(".")[:2]:
            yield f"version of {package} ({minor}, not {found or 'none'})"


def _probe_differences(bound_to: Bindings, probe: ProbeResult) -> Iterator[str]:
    identity = bound_to.probes.get(probe.probe)
    if identity is None or identity.version != probe.version:
        yield f"version of probe {probe.probe} ({identity.version if identity else 'none'}, not {probe.version})"
    elif identity.prompts not in (None, probe.prompts):
        yield f"prompt set of {probe.probe}"
    known = bound_to.instruments.get(probe.probe)
    if known is not None and probe.error is None and not set(known) <= set(probe.instruments):
        yield f"instrument of {probe.probe}"
