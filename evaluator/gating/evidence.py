"""Whether a report is evidence at all: about this policy, job and adapter, with the intervals of its looks."""

from __future__ import annotations

import math
from collections.abc import Iterator

from evaluator.gating.rule_terms import looks_of
from policies.contract.artifacts import Digest
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import EvalReport, ProbeResult
from policies.contract.metrics import probe_of
from policies.documents.schema import ReleasePolicy


def evidence_problems(
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
    return result.look < len(looks_of(result.probe, policy)) and result.confidence == probe_confidence(
        policy.spec.suite, result.probe, result.look, attempt=attempt, candidates=policy.spec.n_candidates
    )
