"""Loads prompt sets. Built-in sets are pinned by digest; others are artifacts, named by theirs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from evaluator.probe import PromptItem
from policies.contract.artifacts import ArtifactStore, Digest, digest_bytes
from policies.contract.suite import PromptSet
from policies.errors import EvaluationError, IntegrityError

ItemT = TypeVar("ItemT", bound=PromptItem)

BUILTIN: Mapping[str, tuple[str, Digest]] = {
    "capability": (
        "capability/v1.jsonl",
        "sha256:5a2a6bc6e0c8093db33d09bd536675fb7d7bfbfaef8601c01852408e58020e36",
    ),
    "coherence": (
        "coherence/v1.jsonl",
        "sha256:6816cf38f91bafc55a4f2bc33077256bdf7fbb54d5bf3f485289b076467a3be4",
    ),
    "emergent_misalignment_preference": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
    "toxicity": (
        "toxicity/v1.jsonl",
        "sha256:b51e1b28cae4036a668d7045de896d6788dc82d3b03c64c3f072f4b85056dc82",
    ),
}
"""probe → (file below `evaluator/prompts`, digest of its bytes)."""


class LoadedPrompts(NamedTuple):
    digest: Digest
    content: bytes


def load_prompts(
    probe: str,
    prompt_set: PromptSet,
    store: ArtifactStore | None,
    *,
    pinned: Mapping[str, tuple[str, Digest]] = BUILTIN,
) -> LoadedPrompts:
    """The bytes of a prompt set, checked against the digest that names them."""
    if prompt_set != "builtin":
        if store is None:
            raise EvaluationError(f"prompt set {prompt_set} is an artifact, and there is no store to read it from")
        return LoadedPrompts(prompt_set, store.read_bytes(prompt_set))
    name, digest = pinned[probe]
    content = files("evaluator").joinpath("prompts", name).read_bytes()
    if digest_bytes(content) != digest:
        raise IntegrityError(f"prompt set {name} is not the one this version was released with; reinstall Tunegate")
    return LoadedPrompts(digest, content)


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
