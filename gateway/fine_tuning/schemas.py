"""Requests and responses on OpenAI's wire shape, with `defense` and `guardrail` as the only additions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from policies.contract.defenses import DefenseSettings
from policies.contract.hyperparameters import DpoHyperparameters, Hyperparameters
from policies.contract.integrations import MAX_INTEGRATIONS, Integration
from policies.contract.worker_api import Progress

MAX_METADATA_PAIRS = 16
MAX_KEY_LENGTH, MAX_VALUE_LENGTH = 64, 512
MAX_DEFENSES = 32


def _within_limits(metadata: dict[str, str]) -> dict[str, str]:
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_KEY_LENGTH or len(value) > MAX_VALUE_LENGTH:
            limits = f"keys have 1 to {MAX_KEY_LENGTH} characters, values at most {MAX_VALUE_LENGTH}"
            raise ValueError(f"key {key[:MAX_KEY_LENGTH]!r}: {limits}")
    return metadata


Metadata = Annotated[
    dict[str, str],
    Field(
        max_length=MAX_METADATA_PAIRS,
        json_schema_extra={
            "propertyNames": {"minLength": 1, "maxLength": MAX_KEY_LENGTH},
            "additionalProperties": {"type": "string", "maxLength": MAX_VALUE_LENGTH},
        },
    ),
    AfterValidator(_within_limits),
]
"""One validator, so that the field is named as `metadata`, whichever of its keys is wrong."""

MAX_SUFFIX_LENGTH = 64


def suffix_in_name(suffix: str) -> str:
    """What stands for it in a model's name, where `:`, `/` and blanks would be ambiguous; empty if nothing can."""
    return re.sub("[^A-Za-z0-9._-]+", "-", suffix).strip("._-")


def _has_place_in_a_name(suffix: str) -> str:
    if not 1 <= len(suffix) <= MAX_SUFFIX_LENGTH or not suffix_in_name(suffix):
        rule = (
            f"a suffix has 1 to {MAX_SUFFIX_LENGTH} characters, with at least one letter a-z or A-Z or digit among "
            "them; in the model's name each run of others than letters, digits, '.', '_' and '-' becomes one '-'"
        )
        raise PydanticCustomError("suffix", "{rule}", {"rule": rule})
    return suffix


Suffix = Annotated[
    str,
    Field(json_schema_extra={"minLength": 1, "maxLength": MAX_SUFFIX_LENGTH, "pattern": "[A-Za-z0-9]"}),
    AfterValidator(_has_place_in_a_name),
]


class RequestBody(BaseModel):
    """An unknown field is refused: a misspelt `defense` must not train undefended."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SupervisedRequest(RequestBody):
    hyperparameters: Hyperparameters | None = None


class DpoRequest(RequestBody):
    hyperparameters: DpoHyperparameters | None = None


class MethodRequest(RequestBody):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedRequest | None = None
    dpo: DpoRequest | None = None
    reinforcement: dict[str, object] | None = None


class CreateJobRequest(RequestBody):
    model: str = Field(min_length=1, max_length=320)
    """A base model, or a released model of one's own (`ft:…`) to continue from."""
    training_file: str = Field(min_length=1, max_length=64)
    validation_file: str | None = Field(None, min_length=1, max_length=64)
    suffix: Suffix | None = None
    seed: int | None = Field(None, ge=0, le=2**31 - 1, strict=True)
    method: MethodRequest | None = None
    hyperparameters: Hyperparameters | None = None
    """Deprecated by OpenAI in favour of those in `method`."""
    metadata: Metadata | None = None
    integrations: tuple[Integration, ...] | None = Field(None, max_length=MAX_INTEGRATIONS)
    defense: tuple[DefenseSettings, ...] = Field((), max_length=MAX_DEFENSES)
    """Addition: defenses besides, or stronger than, those of the operator's policy."""


class SupervisedSettings(BaseModel):
    hyperparameters: Hyperparameters


class SupervisedMethod(BaseModel):
    type: Literal["supervised"] = "supervised"
    supervised: SupervisedSettings


class DpoSettings(BaseModel):
    """β is the number that is trained with, also where `auto` was asked."""

    hyperparameters: DpoHyperparameters


class DpoMethod(BaseModel):
    type: Literal["dpo"] = "dpo"
    dpo: DpoSettings


class JobError(BaseModel):
    code: str
    message: str
    param: str | None


class PolicyReference(BaseModel):
    """The policy that was fixed when the job was created."""

    name: str
    version: str
    digest: str


class Guardrail(BaseModel):
    """Addition: where the job stands in detail, and under what it is judged."""

    phase: str
    policy: PolicyReference
    defenses: tuple[DefenseSettings, ...]
    continues: tuple[str, ...]
    """The released models that the job continues from, the nearest first; none where it begins at the base model."""
    earlier_attempts: int
    """On nearly the same training file, without a release; known once the files are validated, 0 until then."""
    decision: str | None
    progress: Progress | None
    eta_seconds: float | None


class JobResponse(BaseModel):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    hyperparameters: Hyperparameters
    method: SupervisedMethod | DpoMethod = Field(discriminator="type")
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    error: JobError | None
    seed: int
    estimated_finish: int | None
    integrations: tuple[Integration, ...] | None
    metadata: dict[str, str] | None
    suffix: str | None
    """Addition, for people who look a job up: as it stands in the model's name."""
    guardrail: Guardrail


class JobListResponse(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobResponse]
    has_more: bool


class EventResponse(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any]  # Any: OpenAI's free object


class EventListResponse(BaseModel):
    object: Literal["list"] = "list"
    data: list[EventResponse]
    has_more: bool


class CheckpointGuardrail(BaseModel):
    """Addition: whether the gate released this checkpoint; the name of any other one only identifies it."""

    released: bool
    model: str | None
    """The job's `fine_tuned_model` where its adapter is this checkpoint's; None where it is not released."""


class CheckpointResponse(BaseModel):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float]
    guardrail: CheckpointGuardrail


class CheckpointListResponse(BaseModel):
    object: Literal["list"] = "list"
    data: list[CheckpointResponse]
    first_id: str | None
    last_id: str | None
    has_more: bool
