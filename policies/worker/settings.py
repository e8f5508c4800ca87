"""Settings of training and evaluation workers, read from `TUNEGATE_…` variables; no database credential among them."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from policies.cache_folder import cache_folder
from policies.contract.evaluation import Engine
from policies.environment import read_settings
from policies.own_memory import forget_variables

Dtype = Literal["auto", "float32", "bfloat16"]
"""The number format of models: `auto` is bfloat16 where the device multiplies it natively, else float32."""


class WorkerSettings(BaseSettings):
    """Every setting with its default; `docs/settings.md` is checked against this class."""

    model_config = SettingsConfigDict(env_prefix="TUNEGATE_", extra="ignore")

    gateway_url: str = "http://127.0.0.1:8000"
    """Where the gateway's internal API answers."""
    worker_token: SecretStr = Field(min_length=32)
    """Credential of workers on the internal API; at least 32 characters."""
    broker_url: str = "redis://127.0.0.1:6379/0"
    """Redis or Valkey that carries the Celery messages."""
    store_url: str = "file://./tunegate-store"
    """fsspec URL of the artifact store."""
    cache_dir: Path = Field(default_factory=cache_folder)
    """Converted and downloaded base models, and base results of probes."""
    work_dir: Path = Path(tempfile.gettempdir())
    """Scratch folders of attempts; each is removed when its attempt ends."""
    child_user: str | None = None
    """User that children run as, where the worker is root; without it they run as the worker does."""
    threads: int = Field(os.cpu_count() or 1, ge=1)
    """CPU threads of one child process: cores divided by the workers that share the machine."""
    dtype: Dtype = "auto"
    """The number format that models are loaded, trained and evaluated in."""
    processes: int = Field(1, ge=1)
    """Processes that train one job together, a GPU each; a job uses as many of them as divide its batch size."""
    evaluation_engine: Engine = "transformers"
    """What runs the models of an evaluation; `vllm` needs the package vllm in the worker's environment."""
    stop_grace_seconds: float = Field(10.0, gt=0)
    """How long a cancelled child may take to end before its process group is killed."""
    yield_grace_seconds: float = Field(120.0, gt=0)
    """How long a paused or evicted child may take to save its state before its process group is killed."""
    liveness_file: Path | None = None
    """The worker touches it every ten seconds while it is connected to the broker; none by default."""
    metrics_port: int | None = None
    """Port of this worker's own Prometheus metrics; none by default."""

    @field_validator("child_user")
    @classmethod
    def _can_be_changed_to(cls, name: str | None) -> str | None:
        if name is None:
            return None
        if os.geteuid() != 0:
            raise ValueError("only a worker that is root can run children as another user")
        try:
            pwd.getpwnam(name)
        except KeyError:
            raise ValueError(f"there is no user {name!r} on this machine") from None
        return name


CREDENTIALS = ("TUNEGATE_WORKER_TOKEN", "TUNEGATE_BROKER_URL")
_kept: list[WorkerSettings] = []


def worker_settings() -> WorkerSettings:
    """The settings of this process; what is wrong is named by its variable."""
    return _kept[0] if _kept else read_settings(WorkerSettings)


def keep_settings() -> None:
    """Read the settings once and take the credentials out of the environment; forked processes keep them too."""
    _kept[:] = [worker_settings()]
    forget_variables(*CREDENTIALS)
