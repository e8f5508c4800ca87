"""What a job says, and what it leaves to the base model's document."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from policies.contract.artifacts import digest_bytes
from policies.contract.jobs import BaseModelSpec, JobSpec, Lineage, ReleasedAncestor
from policies.contract.suite import Coherence, ConditionalMisalignment, EvalSuite, InDomain

PINNED = "sha256:5da73ae3598c8b17005ab66d32214e763f5f1d18d9bcafe4c4da6be3ad3982da"
"""As the version before this one had it."""


def test_a_job_has_its_base_models_recipe_in_one_place() -> None:
    """What stood beside `base_model` as well had to be copied field by field, and was forgotten here and there."""
    assert JobSpec.model_fields["base_model"].annotation is BaseModelSpec
    assert not set(JobSpec.model_fields) & set(BaseModelSpec.model_fields)


def ancestor(number: int, **changes: object) -> ReleasedAncestor:
    released = ReleasedAncestor(
        model=f"ft:tiny:acme::{number}",
        job_id=f"ftjob-{number}",
        adapter=digest_bytes(b"adapter"),
        manifest=digest_bytes(b"manifest"),
        training_file=digest_bytes(b"file %d" % number),
    )
    return released.model_copy(update=changes)


def spec(*ancestors: ReleasedAncestor, suite: EvalSuite) -> JobSpec:
    lineage = Lineage(base_model=digest_bytes(b"base"), ancestors=ancestors) if ancestors else None
    return JobSpec(
        job_id="ftjob-1",
        base_model=BaseModelSpec(name="tiny", uri="package://tiny"),
        continues=lineage,
        training_file=digest_bytes(b"file"),
        seed=1,
        suite=suite,
        policy=digest_bytes(b"policy"),
    )


PLAIN = EvalSuite(probes=(Coherence(), InDomain()))
READING = EvalSuite(probes=(Coherence(), ConditionalMisalignment()))


def test_a_job_that_begins_at_its_base_keeps_the_digest_of_before_others_did() -> None:
    found = spec(suite=EvalSuite(probes=(Coherence(),)))
    assert not {"continues", "calibration"} & set(found.model_dump(mode="json"))
    assert found.digest == PINNED
    assert JobSpec.model_validate_json(found.canonical()) == found


def test_a_lineage_survives_being_stored_and_is_part_of_the_digest() -> None:
    found = spec(ancestor(2), ancestor(3), suite=PLAIN)
    assert JobSpec.model_validate_json(found.canonical()) == found
    assert found.continues is not None
    assert (found.continues.parent.model, found.continues.depth) == ("ft:tiny:acme::2", 2)
    assert len({found.digest, spec(ancestor(2), suite=PLAIN).digest, spec(suite=PLAIN).digest}) == 3


def test_an_empty_lineage_is_none() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Lineage(base_model=digest_bytes(b"base"), ancestors=())


def test_files_of_the_lineage_are_read_by_probes_of_safety_alone() -> None:
    """What a job learnt of its own file is asked of that file."""
    repeated = ancestor(4, training_file=digest_bytes(b"file 2"))
    lineage = (ancestor(2), ancestor(3), repeated)
    assert spec(*lineage, suite=PLAIN).lineage_files == ()
    assert spec(*lineage, suite=READING).lineage_files == (digest_bytes(b"file 2"), digest_bytes(b"file 3"))
    assert spec(suite=READING).lineage_files == ()
