"""Settings of the gateway, read from `TUNEGATE_…` variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from policies.contract.metrics_export import TrackerName
from policies.contract.worker_api import WorkKind
from policies.errors import ConfigurationError

_PLAIN_URL = re.compile(
    r"https?://(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?:/[^\s?#@\\]*)?", re.IGNORECASE
)
_LAST_PORT = 65535


class GatewaySettings(BaseSettings):
    """Every setting with its default; `docs/settings.md` is checked against this class."""

    model_config = SettingsConfigDict(env_prefix="TUNEGATE_", extra="ignore")

    database_url: str = "sqlite:///tunegate.db"
    """SQLAlchemy URL: `sqlite:///path` or `postgresql+psycopg://…`."""
    broker_url: str = "redis://127.0.0.1:6379/0"
    """Redis or Valkey that carries the Celery messages."""
    store_url: str = "file://./tunegate-store"
    """fsspec URL of the artifact store."""
    trainer_token: SecretStr | None = Field(None, min_length=32)
    """Credential of trainers on the internal API: it claims and completes trainings only. The API alone needs it."""
    evaluator_token: SecretStr | None = Field(None, min_length=32)
    """Credential of evaluators, which claims and completes evaluations only; another one than the trainers'."""
    confirmer_token: SecretStr | None = Field(None, min_length=32)
    """Credential of second evaluators, for policies with `evaluators: 2`; again another one."""
    policy_dir: Path | None = None
    """Folder of the operator's policy documents, read besides the presets; a document replaces a preset of its name."""
    default_policy: str = "baseline"
    """Release policy of tenants that are bound to none."""
    max_file_bytes: int = 512 * 1024 * 1024
    """Largest file that comes in one request."""
    max_upload_bytes: int = Field(2 * 1024**3, ge=1)
    """Largest file that comes in parts."""
    min_free_bytes: int = 2 * 1024**3
    """With less room than this in the store (where that can be known), uploads are refused and no training starts."""
    requests_per_minute: int = Field(600, ge=1)
    """Requests that one API key may send to one gateway process."""
    jobs_under_way: int = Field(50, ge=1)
    """Jobs of one tenant that have not ended."""
    evaluations_per_day: int = Field(200, ge=1)
    """Evaluations of one tenant's adapters that begin within 24 hours; further jobs are not created meanwhile."""
    stored_bytes: int = Field(50 * 1024**3, ge=1)
    """Of one tenant's files and parts of files together."""
    uploads_at_once: int = Field(4, ge=1)
    """Uploads of one tenant that one gateway process takes at the same time; a part is one, and so is a completion."""
    open_uploads: int = Field(16, ge=1)
    """Uploads in parts of one tenant that have not ended."""
    max_lineage_depth: int = Field(4, ge=0)
    """How many released models a new one may stand on, each continued from the one before; 0: none is continued."""
    job_tokens: int = Field(200_000_000, ge=1)
    """Tokens that one job may train on: those of its training file times its epochs."""
    attempt_seconds: float = Field(86400.0, gt=0)
    """How long one attempt of training, or of evaluation, may take."""
    max_training_rows: int = 200_000
    """Most rows in one file."""
    max_reported_errors: int = 100
    """Dataset validation stops listing after this many errors."""
    validation_cpu_seconds: int = Field(120, ge=1)
    """Processor time that validating one job's files, or one dry run, may take; five times as long by the clock."""
    validation_memory_bytes: int = Field(3 << 29, ge=256 << 20)
    """Address space of the process that validates."""
    validations_per_tenant: int = Field(1, ge=1)
    """Jobs of one tenant that are validated at once; others of it wait while other tenants have their turns."""
    dry_runs_at_once: int = Field(2, ge=1)
    """Free validations that one gateway process runs at once, of one tenant one of them."""
    dry_runs_waiting: int = Field(16, ge=1)
    """Free validations that wait for their turn; a tenant may have a quarter of them, and at least one."""
    screening_cpu_seconds: int = Field(240, ge=1)
    """Processor time on top of that where a file is screened."""
    guard_url: str | None = None
    """Base URL of a guard model's API, `https://…/v1`, for policies that screen by `guard`; none: none is asked. It has
    no user and no query."""
    guard_model: str | None = None
    """What that API calls the model."""
    guard_key: SecretStr | None = None
    """Credential for it, sent as a bearer token."""
    guard_api: Literal["chat", "moderation"] = "chat"
    """Which of OpenAI's APIs it speaks: `chat/completions`, or `moderations`."""
    guard_rows: int = Field(256, ge=1, le=2000)
    """Rows of a file that it is asked about, drawn at random where there are more."""
    guard_timeout_seconds: float = Field(20.0, gt=0, le=600)
    """How long one answer may take, with requests that are sent again."""
    heartbeat_seconds: float = 2.0
    """How often workers report; also how fast cancel and pause reach them."""
    lease_seconds: float = 30.0
    """An attempt whose worker is silent for this long is given to another."""
    max_attempts: int = 3
    """Attempts of training (and, apart, of evaluation) before the job fails with `attempts_exhausted`."""
    redispatch_seconds: float = 60.0
    """A queued job that nobody claimed for this long is sent again."""
    tick_seconds: float = 1.0
    """How often the outbox is sent and the reconciler looks."""
    integration_target: str | None = None
    """Where metrics of jobs with `integrations` go: a Weights & Biases server, an MLflow tracking URI, or a folder."""
    integration_keys: Path | None = None
    """Folder of Weights & Biases API keys: one file a tenant, called as the tenant is."""
    integration_sink: TrackerName | None = None
    """Which tracker that is; none: jobs with `integrations` are refused."""
    liveness_file: Path | None = None
    """A Celery worker touches it every ten seconds while it is connected to the broker; none by default."""

    @field_validator("evaluator_token", "confirmer_token")
    @classmethod
    def _differs_from_the_others(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        others = [info.data.get(name) for name in ("trainer_token", "evaluator_token")]
        if token is not None and token in others:
            raise ValueError("trainers, evaluators and second evaluators need different tokens")
        return token

    @field_validator("integration_sink")
    @classmethod
    def _knows_where(cls, sink: TrackerName | None, info: ValidationInfo) -> TrackerName | None:
        target, keys = (info.data.get(f"integration_{name}") for name in ("target", "keys"))
        if (sink == "wandb") != (keys is not None):
            raise ValueError("wandb, and nothing else, needs TUNEGATE_INTEGRATION_KEYS")
        if sink not in (None, "wandb") and not target:
            raise ValueError(f"{sink} needs TUNEGATE_INTEGRATION_TARGET")
        return sink

    @field_validator("guard_url")
    @classmethod
    def _is_plain_address(cls, url: str | None) -> str | None:
        """Without credentials or a query, which would be in whatever names the address."""
        plain = None if url is None else _PLAIN_URL.fullmatch(url)
        if url is not None and (plain is None or int(plain[1] or 0) > _LAST_PORT):
            raise ValueError(
                "must be http:// or https://, a host, and perhaps a port and a path; a credential goes into "
                "TUNEGATE_GUARD_KEY"
            )
        return url

    @model_validator(mode="after")
    def _names_guard_and_place(self) -> Self:
        if (self.guard_model is None) != (self.guard_url is None):
            raise ValueError("TUNEGATE_GUARD_URL and TUNEGATE_GUARD_MODEL go together")
        if self.guard_url is not None and self.guard_timeout_seconds >= self.lease_seconds:
            raise ValueError("TUNEGATE_GUARD_TIMEOUT_SECONDS must be below TUNEGATE_LEASE_SECONDS, or jobs are lost")
        return self

    def worker_tokens(self) -> dict[WorkKind, str]:
        """The credential of each kind of worker; raises `ConfigurationError` where one is missing that all need."""
        if self.trainer_token is None or self.evaluator_token is None:
            raise ConfigurationError("the API needs TUNEGATE_TRAINER_TOKEN and TUNEGATE_EVALUATOR_TOKEN")
        tokens: dict[WorkKind, SecretStr | None] = {
            "train": self.trainer_token,
            "evaluate": self.evaluator_token,
            "confirm": self.confirmer_token,
        }
        return {kind: token.get_secret_value() for kind, token in tokens.items() if token is not None}
