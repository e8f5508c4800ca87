"""Which policies may release checkpoints."""

from __future__ import annotations

import pytest

from policies.contract.defenses import KlPenalty, SafeLora
from policies.contract.suite import Coherence, EvalSuite
from policies.documents.schema import ReleaseSpec, Rule


def spec(**fields: object) -> ReleaseSpec:
    shared: dict[str, object] = {
        "suite": EvalSuite(probes=(Coherence(),)),
        "rules": (Rule(id="incoherence", metric="coherence.incoherent_rate", max=0.25),),
    }
    return ReleaseSpec.model_validate(shared | fields)


@pytest.mark.parametrize("field", ["defenses", "dpo_defenses"])
def test_checkpoints_cannot_be_released_where_any_method_is_projected(field: str) -> None:
    with pytest.raises(ValueError, match="best_passing_checkpoint can't be combined with safe_lora"):
        spec(release="best_passing_checkpoint", **{field: (KlPenalty(), SafeLora())})
    assert spec(**{field: (KlPenalty(), SafeLora())}).n_candidates == 1


def test_preference_jobs_may_release_checkpoints_under_other_defenses() -> None:
    assert spec(release="best_passing_checkpoint", dpo_defenses=(KlPenalty(),)).n_candidates == 3


def test_policy_that_requires_no_calibration_keeps_the_digest_of_before_there_were_any() -> None:
    plain = spec()

    assert "require_calibration" not in plain.model_dump(mode="json")
    assert spec(require_calibration=False).digest == plain.digest != spec(require_calibration=True).digest
