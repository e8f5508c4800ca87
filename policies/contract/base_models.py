"""What is known of a base model before a job asks for it: how it reads text, and what of it works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.contract.artifacts import Digest, Record
from policies.contract.jobs import BaseModelSpec
from policies.errors import BaseModelChangedError, ConfigurationError

TextFile = Literal[
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json"
]
TEXT_FILES: tuple[TextFile, ...] = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
)
MAX_TEXT_BYTES = 64 << 20
"""Of one file; the largest vocabularies take half of it."""
Outcome = Literal["works", "limited", "refused"]
"""`refused`: no job can be trained on this base model as it is."""


class BaseTextFiles(Record):
    """The files of a model folder that say how text is read: whoever has the same ones makes the same token ids."""

    files: dict[TextFile, str]
    """Contents by name; those that the folder lacks are not among them."""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read a model folder.

        Raises:
            ConfigurationError: a file can't be read, or is none that a model has.
        """
        return cls(files={name: _content(folder / name) for name in TEXT_FILES if (folder / name).is_file()})


def _content(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ConfigurationError(f"{path} has more than {MAX_TEXT_BYTES >> 20} MiB", "uri")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} can't be read: {error}", "uri") from error


class BaseModelFinding(Record):
    """One thing that was looked at."""

    what: Annotated[str, Field(max_length=64)]
    outcome: Outcome
    found: Annotated[str, Field(max_length=1000)]


class BaseModelCheck(Record):
    """What an evaluator found when it looked at a base model as the operator set it up."""

    spec: Digest
    """Of the `BaseModelSpec`."""
    base: Digest | None = None
    """Of the model's folder; None where there is none."""
    text: Digest | None = None
    """Of its `BaseTextFiles`."""
    findings: tuple[BaseModelFinding, ...] = Field(min_length=1, max_length=64)

    @property
    def refusal(self) -> BaseModelFinding | None:
        """The first reason why nothing can be trained on it."""
        return next((finding for finding in self.findings if finding.outcome == "refused"), None)

    @property
    def is_conclusive(self) -> bool:
        """Whether the model could be looked at."""
        return self.base is not None and self.text is not None

    @model_validator(mode="after")
    def _has_what_jobs_need(self) -> Self:
        if self.refusal is None and not self.is_conclusive:
            raise ValueError("a base model that works has a folder and files that say how it reads text")
        return self


class BaseModelsToCheck(Record):
    """What the gateway offers and nobody has looked at yet, or not for long."""

    specs: tuple[BaseModelSpec, ...]


class CheckAssignment(Record):
    """What a worker writes to `assignment.json` in the child's folder; the child answers with `check.json`."""

    spec: BaseModelSpec
    store_url: str
    cache_dir: str
    worker_pid: int


def require_text(files: BaseTextFiles, wanted: Digest | None, name: str) -> None:
    """Hold what a worker's base model reads by against what the job's files were validated by; None: an older job's.

    Raises:
        BaseModelChangedError: they differ.
    """
    if wanted is not None and files.digest != wanted:
        raise BaseModelChangedError(
            f"base model {name} reads text by {files.digest}, but the job's files were validated by {wanted}: "
            "the model was changed meanwhile; create the job again in a minute"
        )
