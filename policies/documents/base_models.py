"""What a command line calls a base model → the base model and its recipe."""

from __future__ import annotations

import os
from pathlib import Path

from policies.contract.jobs import BaseModelRef, BaseModelSpec
from policies.documents.loader import resolve_base_model_document
from policies.errors import ConfigurationError

GGUF_SUFFIX = ".gguf"


def base_model_of(text: str, folder: Path | None) -> BaseModelSpec:
    """`package://…`, `hf://owner/name[@revision]`, a local folder or GGUF file, or a document's name in `folder`."""
    if "://" in text:
        uri, _, revision = text.partition("@")
        return BaseModelSpec(name=uri, uri=uri, revision=revision or None)
    if os.path.isdir(text) or Path(text).suffix == GGUF_SUFFIX:
        return BaseModelSpec(name=Path(text).resolve().name, uri=str(Path(text).resolve()))
    return resolve_base_model_document(text, folder).spec


def hub_repository(location: str, revision: str | None) -> tuple[str, str | None]:
    """Repository and revision of `hf://location`, whose revision may stand behind an `@` or apart.

    Raises:
        ConfigurationError: both are there and differ.
    """
    repository, _, inline = location.partition("@")
    if inline and revision and inline != revision:
        raise ConfigurationError(
            f"hf://{location} and revision {revision!r} differ; name the revision once", "revision"
        )
    return repository, inline or revision


def reference(spec: BaseModelSpec) -> BaseModelRef:
    return BaseModelRef(**{name: getattr(spec, name) for name in BaseModelRef.model_fields})
