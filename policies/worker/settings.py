"""Settings of training and evaluation workers, read from `TUNEGATE_…` variables; no database credential among them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from policies.cache_folder import cache_folder
from policies.contract.evaluation import Engine
from policies.environment import read_settings

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
    metrics_port: int | None = None
    """Port of this worker's own Prometheus metrics; none by default."""


def worker_settings() -> WorkerSettings:
    """The settings of this process; what is wrong is named by its variable."""
    return read_settings(WorkerSettings)
