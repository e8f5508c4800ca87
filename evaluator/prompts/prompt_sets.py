"""Loads prompt sets: built-in ones, artifacts and files of their publishers, each checked against its digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from evaluator.prompts.prompt_files import read_prompt_file
from evaluator.prompts.prompt_formats import convert
from evaluator.prompts.prompt_item import PromptItem
from policies.contract.artifacts import Digest
from policies.contract.probe_record import PromptFile, PromptSet, joined_digest
from policies.contract.store import ArtifactStore
from policies.errors import EvaluationError, NotAtHandError
from policies.overlap.built_in_prompts import BUILTIN as BUILTIN
from policies.overlap.built_in_prompts import read_built_in

ItemT = TypeVar("ItemT", bound=PromptItem)


class LoadedPrompts(NamedTuple):
    """A prompt set as it was read."""

    digest: Digest
    """Of the bytes that were read; a published file has other `content`."""
    content: bytes
    """JSONL, an item of the probe a line."""


def load_prompts(
    probe: str,
    prompt_set: PromptSet,
    store: ArtifactStore | None,
    *,
    cache_dir: Path | None = None,
    pinned: Mapping[str, tuple[str, Digest]] = BUILTIN,
) -> LoadedPrompts:
    """A prompt set of `probe`, checked against its digest; what has to be downloaded is kept in `cache_dir`."""
    if isinstance(prompt_set, PromptFile):
        content = read_prompt_file(prompt_set, cache_dir)
        return LoadedPrompts(prompt_set.content, convert(content, prompt_set.format, probe))
    if isinstance(prompt_set, tuple):
        return _joined([load_prompts(probe, file, store, cache_dir=cache_dir) for file in prompt_set])
    if prompt_set != "builtin":
        if store is None:
            raise NotAtHandError(f"prompt set {prompt_set} is in an artifact store, and none is configured here")
        return LoadedPrompts(prompt_set, store.read_bytes(prompt_set))
    name, digest = pinned[probe]
    return LoadedPrompts(digest, read_built_in(name, digest))


def _joined(parts: Sequence[LoadedPrompts]) -> LoadedPrompts:
    """Several files as one set, named by the digest of their digests."""
    return LoadedPrompts(
        joined_digest(part.digest for part in parts), b"\n".join(part.content.strip() for part in parts)
    )


def parse_prompts(content: bytes, item_type: type[ItemT]) -> tuple[ItemT, ...]:
    """The items of a JSONL prompt set; every line must be one, with an id of its own."""
    items = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            items.append(item_type.model_validate_json(line))
        except ValidationError as error:
            raise EvaluationError(f"prompt set, line {number}: {error.errors()[0]['msg']}") from error
    if len({item.id for item in items}) != len(items):
        raise EvaluationError("prompt set: two prompts share an id")
    if not items:
        raise EvaluationError("the prompt set is empty")
    return tuple(items)
