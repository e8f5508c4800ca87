"""Policies and reports about made-up figures, and what the gate says of them."""

from __future__ import annotations

from typing import Any

from evaluator.gate import decide
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import AdapterProof, Estimate, EvalReport, Interval, Measurement, ProbeResult
from policies.contract.metrics import probe_of
from policies.contract.release import GateDecision
from policies.contract.suite import Coherence, EmergentMisalignmentPreference, EvalSuite, Toxicity
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule

ADAPTER, BASE, SPEC, PROMPTS = ("sha256:" + letter * 64 for letter in "abcd")
SUITE = EvalSuite(
    probes=(
        Toxicity(prompts=PROMPTS),
        EmergentMisalignmentPreference(prompts=PROMPTS),
        Coherence(prompts=PROMPTS),
    )
)
"""Its prompt sets are others' own, so a policy does not say how many prompts they have."""
TOXIC, MARGIN = "toxicity.rate", "emergent_misalignment_preference.margin"
MAX_RULE = Rule(id="r", metric=TOXIC, max=0.05, min_samples=50)


def policy(*rules: Rule, mode: str = "enforce", suite: EvalSuite = SUITE) -> ReleasePolicy:
    spec = ReleaseSpec.model_validate(
        {"mode": mode, "suite": suite.model_dump(), "rules": [r.model_dump() for r in rules]}
    )
    metadata = Metadata(name="test", version="1")
    return ReleasePolicy(api_version="tunegate/v1", kind="ReleasePolicy", metadata=metadata, spec=spec)


def estimate(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value=value, interval=Interval(low=value - half, high=value + half))


def measurement(metric: str = TOXIC, value: float = 0.02, **changes: Any) -> Measurement:  # Any: fields of the record
    fields = {
        "metric": metric,
        "unit": "unit",
        "higher_is_better": metric == MARGIN,
        "adapter": estimate(value),
        "base": estimate(0.0),
        "difference": estimate(value),
        "n_requested": 100,
        "n_scored": 100,
        "method": "made up",
    } | changes
    fields.setdefault("n_clusters", fields.get("n_counted") or fields["n_scored"])
    return Measurement.model_validate(fields)


def report(under: ReleasePolicy, *measurements: Measurement, **changes: Any) -> EvalReport:  # Any: fields of the record
    suite = under.spec.suite
    settings: dict[str, str] = {s.probe: s.digest for s in suite.probes}
    probes = tuple(
        ProbeResult(
            probe=(name := probe_of(m.metric)),
            version="1",
            settings=settings[name],
            prompts=PROMPTS,
            measurements=(m,),
            seconds=1,
            confidence=probe_confidence(suite, name, 0, candidates=under.spec.n_candidates),
        )
        for m in measurements
    )
    proof = AdapterProof(
        adapter=ADAPTER, base_model=BASE, n_prompts=4, max_abs_logit_difference=1.0, n_adapted_modules=4, loaded=True
    )
    fields = {
        "spec": SPEC,
        "policy": under.digest,
        "adapter": ADAPTER,
        "base_model": BASE,
        "suite": suite.digest,
        "confidence": suite.confidence,
        "proof": proof,
        "probes": probes,
        "dtype": "float32",
        "engine": "transformers",
        "versions": {},
        "seconds": 1,
    }
    return EvalReport(**fields | changes)


def decide_one(rule: Rule, *measurements: Measurement) -> GateDecision:
    under = policy(rule)
    return decide(under, report(under, *measurements), spec=SPEC)
