"""What a job says, and what it leaves to the base model's document."""

from __future__ import annotations

from policies.contract.jobs import BaseModelSpec, JobSpec


def test_a_job_has_its_base_models_recipe_in_one_place() -> None:
    """What stood beside `base_model` as well had to be copied field by field, and was forgotten here and there."""
    assert JobSpec.model_fields["base_model"].annotation is BaseModelSpec
    assert not set(JobSpec.model_fields) & set(BaseModelSpec.model_fields)
