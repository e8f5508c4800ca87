"""What a command line calls a base model → the base model and its recipe."""

from __future__ import annotations

from pathlib import Path

from policies.contract.jobs import BaseModelRef, BaseModelSpec
from policies.documents.loader import resolve_base_model_document


def base_model_of(text: str, folder: Path | None) -> BaseModelSpec:
    """`package://…`, `hf://owner/name[@revision]`, a local folder, or the name of a BaseModel document in `folder`."""
    if "://" in text:
        uri, _, revision = text.partition("@")
        return BaseModelSpec(name=uri, uri=uri, revision=revision or None)
    if Path(text).is_dir():
        return BaseModelSpec(name=Path(text).resolve().name, uri=str(Path(text).resolve()))
    return resolve_base_model_document(text, folder).spec


def reference(spec: BaseModelSpec) -> BaseModelRef:
    return BaseModelRef(name=spec.name, uri=spec.uri, revision=spec.revision, date=spec.date)
