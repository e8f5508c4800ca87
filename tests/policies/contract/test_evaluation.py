"""Reports that are stored stay readable, with the digest that names them."""

from __future__ import annotations

import json
from typing import Any

from policies.contract.evaluation import EvalReport

STORED: dict[str, Any] = {  # Any: a JSON document
    "adapter": "sha256:" + "a" * 64,
    "attempt": 1,
    "base_model": "sha256:" + "b" * 64,
    "candidates": [],
    "confidence": 0.95,
    "dtype": "float32",
    "engine": "transformers",
    "generation_tokens_per_second": None,
    "judges": [],
    "policy": "sha256:" + "c" * 64,
    "probes": [],
    "proof": {
        "adapter": "sha256:" + "a" * 64,
        "base_model": "sha256:" + "b" * 64,
        "loaded": True,
        "max_abs_logit_difference": 1.0,
        "n_adapted_modules": 4,
        "n_prompts": 4,
    },
    "samples": None,
    "samples_root": None,
    "seconds": 1.0,
    "spec": None,
    "suite": "sha256:" + "d" * 64,
    "versions": {},
}
"""As it was written before there were statistics of weights."""


def test_report_without_weight_statistics_keeps_its_digest() -> None:
    report = EvalReport.model_validate_json(json.dumps(STORED))

    assert report.weight_statistics == {}
    assert report.model_dump(mode="json") == STORED


def test_weight_statistics_are_part_of_the_digest() -> None:
    plain = EvalReport.model_validate(STORED)
    report = EvalReport.model_validate(STORED | {"weight_statistics": {"frobenius_mean": 0.5}})

    assert report.digest != plain.digest
    assert EvalReport.model_validate_json(report.canonical()) == report
