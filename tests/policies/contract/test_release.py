"""Decisions that are stored stay readable, with the digest that names them."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from policies.contract.release import GateDecision, RuleOutcome

STORED: dict[str, Any] = {  # Any: a JSON document
    "adapter": "sha256:" + "a" * 64,
    "decision": "reject",
    "policy": "sha256:" + "b" * 64,
    "reasons": ["r: toxicity.rate breaks max 0.05", "The evaluation ended at the failed rule r"],
    "report": "sha256:" + "c" * 64,
    "results": [
        {
            "adapter": None,
            "base": None,
            "bound": "max",
            "judged": None,
            "limit": 0.05,
            "metric": "coherence.incoherent_rate",
            "mode": "enforce",
            "n_clusters": None,
            "n_scored": None,
            "outcome": "error",
            "reason": "coherence.incoherent_rate was not measured: the evaluation ended at the failed rule r",
            "rule": "s",
            "samples_to_settle": None,
            "unit": None,
        }
    ],
}
"""As version 0.1.0 wrote it: a rule that was skipped had the outcome `error`."""
DIGEST = "sha256:2b17d231605f9e6a6385ebf7c42652dc849b8e414ae11665aa1b19fdca341afa"


def with_outcome(outcome: str) -> dict[str, Any]:  # Any: a JSON document
    (result,) = STORED["results"]
    return STORED | {"results": [result | {"outcome": outcome}]}


def test_decision_of_an_older_version_is_read_unchanged() -> None:
    decision = GateDecision.model_validate_json(json.dumps(STORED))

    assert decision.results[0].outcome == "error"
    assert decision.digest == DIGEST


@pytest.mark.parametrize("outcome", get_args(RuleOutcome))
def test_every_outcome_survives_being_stored(outcome: str) -> None:
    decision = GateDecision.model_validate(with_outcome(outcome))

    assert GateDecision.model_validate_json(decision.canonical()) == decision


def test_outcome_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="outcome"):
        GateDecision.model_validate(with_outcome("waived"))


def test_what_a_limit_is_worth_survives_being_stored_and_is_part_of_the_digest() -> None:
    (result,) = STORED["results"]
    known = result | {"false_block_le": 0.05, "miss_le": 0.171, "detectable_change": 0.02}
    decision = GateDecision.model_validate(
        STORED | {"results": [known], "calibration": DIGEST, "warnings": ["a rule is not usable"]}
    )

    assert GateDecision.model_validate_json(decision.canonical()) == decision
    assert decision.digest != DIGEST
