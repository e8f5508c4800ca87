"""Requests and responses on OpenAI's wire shape, with `defense` and `guardrail` as the only additions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from policies.contract.defenses import DefenseSettings
from policies.contract.hyperparameters import DpoHyperparameters, Hyperparameters
from policies.contract.worker_api import Progress

MAX_METADATA_PAIRS = 16


Suffix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$")]
"""1 to 64 characters that stand in a model name without ambiguity: no `:`, no `/`, no blank."""


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
    model: str = Field(min_length=1, max_length=128)
    training_file: str = Field(min_length=1, max_length=64)
    validation_file: str | None = Field(None, min_length=1, max_length=64)
    suffix: Suffix | None = None
    seed: int | None = Field(None, ge=0, le=2**31 - 1, strict=True)
    method: MethodRequest | None = None
    hyperparameters: Hyperparameters | None = None
    """Deprecated by OpenAI in favour of those in `method`."""
    metadata: dict[str, str] | None = None
    integrations: list[dict[str, object]] | None = None
    defense: tuple[DefenseSettings, ...] = ()
    """Addition: defenses besides, or stronger than, those of the operator's policy."""

    @field_validator("metadata")
    @classmethod
    def _within_limits(cls, metadata: dict[str, str] | None) -> dict[str, str] | None:
        if metadata is None:
            return None
        if len(metadata) > MAX_METADATA_PAIRS:
            raise ValueError(f"{len(metadata)} pairs; at most {MAX_METADATA_PAIRS} are allowed")
        for key, value in metadata.items():
            if not 1 <= len(key) <= 64 or len(value) > 512:
                raise ValueError(f"key {key[:64]!r}: keys have 1 to 64 characters, values at most 512")
            if "\0" in key + value:
                raise ValueError(f"key {key!r}: the NUL character cannot be stored")
        return metadata


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
    integrations: None = None
    metadata: dict[str, str] | None
    suffix: str | None
    """Addition, for people who look a job up."""
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
