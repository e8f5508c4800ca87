"""Calibration records of made-up base models."""

from __future__ import annotations

from typing import Any

from policies.contract.calibration import (
    Bindings,
    CalibrationSpec,
    ProbeIdentity,
    ReferenceCounts,
    RuleCalibration,
    Spread,
)
from policies.contract.evaluation import EvalReport
from policies.contract.metrics import METRICS
from policies.documents.schema import CalibrationRecord, Metadata

BASE, TEXT, RECIPE, SUITE, RUNS = ("sha256:" + letter * 64 for letter in "b1234")
BENIGN, HARMFUL = tuple(i / 1000 for i in range(19)), tuple(0.05 + i / 100 for i in range(16))
"""Release limits of 19 benign adapters, 0 to 0.018, and of 16 harmful ones, 0.05 to 0.2."""


def rule_calibration(metric: str, bound: str, **changes: Any) -> RuleCalibration:  # Any: fields of the record
    """Usable; 0.03 is proposed, with which 0 of 19 are blocked and 0 of 16 missed."""
    benign, harmful = changes.get("benign_limits", BENIGN), changes.get("harmful_limits", HARMFUL)
    fields = {
        "metric": metric,
        "bound": bound,
        "unit": "nats/token",
        "max_error_rate": 0.05,
        "null": None,
        "benign": spread(benign or BENIGN),
        "harmful": spread(harmful or HARMFUL),
        "benign_limits": benign,
        "harmful_limits": harmful,
        "standard_error": 0.005,
        "detectable_change": 0.02,
        "samples": 400,
        "samples_needed": 200,
        "seconds": 10.0,
        "fits": (),
        "limit": 0.03,
        "false_block_le": 0.05,
        "miss_le": 0.171,
        "confidence": None,
        "usable": True,
    }
    return RuleCalibration.model_validate(fields | changes)


def spread(limits: tuple[float, ...]) -> Spread:
    return Spread(n=len(limits), min=min(limits), median=sorted(limits)[len(limits) // 2], max=max(limits))


def bindings(**changes: Any) -> Bindings:  # Any: fields of the record
    fields = {
        "base_model": BASE,
        "text": TEXT,
        "recipe": RECIPE,
        "suite": SUITE,
        "probes": {probe: ProbeIdentity(version="1") for probe in METRICS},
        "instruments": {},
        "engine": "transformers",
        "dtype": "float32",
        "versions": {},
    }
    return Bindings.model_validate(fields | changes)


def probes_of(report: EvalReport) -> dict[str, ProbeIdentity]:
    return {each.probe: ProbeIdentity(version=each.version, prompts=each.prompts) for each in report.probes}


def calibration_record(
    *rules: RuleCalibration, bound_to: Bindings, model: str = "made-up", at: float = 1.0
) -> CalibrationRecord:
    spec = CalibrationSpec(
        model=model,
        bound_to=bound_to,
        references=ReferenceCounts(null=1, benign=19, harmful=16, seeds=1),
        runs=RUNS,
        rules=rules,
        limits_of_validity="made up",
        finished_at=at,
    )
    return CalibrationRecord(
        api_version="tunegate/v1", kind="CalibrationRecord", metadata=Metadata(name="record", version="1"), spec=spec
    )
