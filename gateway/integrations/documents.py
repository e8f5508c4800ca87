"""What an export reads of the API's answers; fields that it has no use for, and new ones, are passed over."""

from __future__ import annotations

from pydantic import BaseModel, JsonValue

from policies.contract.integrations import Integration


class PolicyPart(BaseModel):
    name: str
    version: str


class DefensePart(BaseModel):
    name: str


class GuardrailPart(BaseModel):
    policy: PolicyPart
    defenses: tuple[DefensePart, ...] = ()
    decision: str | None = None


class SettingsPart(BaseModel):
    hyperparameters: dict[str, str | int | float | None] = {}


class MethodPart(BaseModel):
    type: str = "supervised"
    dpo: SettingsPart | None = None
    """With β, which the job's own `hyperparameters` leave out."""


class ErrorPart(BaseModel):
    code: str


class JobDocument(BaseModel):
    """`GET /v1/fine_tuning/jobs/{id}`."""

    id: str
    status: str
    model: str
    created_at: int
    finished_at: int | None = None
    fine_tuned_model: str | None = None
    seed: int | None = None
    trained_tokens: int | None = None
    hyperparameters: dict[str, str | int | float | None] = {}
    method: MethodPart = MethodPart()
    training_file: str
    validation_file: str | None = None
    integrations: tuple[Integration, ...] | None = None
    error: ErrorPart | None = None
    guardrail: GuardrailPart


class EventDocument(BaseModel):
    """A line of `GET …/events`."""

    id: str
    created_at: int
    type: str
    data: dict[str, JsonValue] | None = None


class CheckpointDocument(BaseModel):
    """A line of `GET …/checkpoints`."""

    id: str
    created_at: int
    step_number: int
    metrics: dict[str, float | None] = {}


class EstimatePart(BaseModel):
    value: float


class MeasurementPart(BaseModel):
    metric: str
    adapter: EstimatePart | None = None
    base: EstimatePart | None = None


class ProbePart(BaseModel):
    error: str | None = None
    measurements: tuple[MeasurementPart, ...] = ()


class ReportDocument(BaseModel):
    """`GET /v1/guardrail/jobs/{id}/report`."""

    decision: str
    probes: tuple[ProbePart, ...] = ()


class JobDocuments(BaseModel):
    """All that the API says of one job; events newest first, as it lists them."""

    job: JobDocument
    events: tuple[EventDocument, ...] = ()
    checkpoints: tuple[CheckpointDocument, ...] = ()
    report: ReportDocument | None = None
