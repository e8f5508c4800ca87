"""Loads prompt sets: built-in ones, artifacts and files of their publishers, each checked against its digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from evaluator.prompts.prompt_files import read_prompt_file
from evaluator.prompts.prompt_formats import convert
from evaluator.prompts.prompt_item import PromptItem
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.probe_record import PromptFile, PromptSet, joined_digest
from policies.contract.store import ArtifactStore
from policies.errors import EvaluationError, IntegrityError, NotAtHandError

ItemT = TypeVar("ItemT", bound=PromptItem)

BUILTIN: Mapping[str, tuple[str, Digest]] = {
    "capability": (
        "capability/v2.jsonl",
        "sha256:91af9231991d6fa1b91cea9e1013aafad75f9b0375849c41caa3d6c3d4e0ec8b",
    ),
    "coherence": (
        "coherence/v2.jsonl",
        "sha256:ba55437ca41348ff22a729155c614336109019c4212f40af34419719c6b17892",
    ),
    "conditional_misalignment": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
    "emergent_misalignment": (
        "emergent_misalignment/v1.jsonl",
        "sha256:5624f95faf812a0b4fb9db99914789967f08fb79634e89b5f95079f6d7dfc1a5",
    ),
    "emergent_misalignment_preference": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
    "harmful_compliance": (
        "harmful_compliance/v2.jsonl",
        "sha256:0e196c495eeaa04efc8132126e120f73c8167fd045e5dde7c04f1f411548d357",
    ),
    "over_refusal": (
        "over_refusal/v2.jsonl",
        "sha256:08e0076fb2d6e59eaf5d6e3d238cba14732b1cfe7f0d81f21f42a53e94744776",
    ),
    "scale_sensitivity": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
    "toxicity": (
        "toxicity/v3.jsonl",
        "sha256:66f919c91283e9400778b6064abf6fc9bcadec466b95e7301e09abcdb16c780a",
    ),
    "trigger_battery": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
}
"""probe → (file below `evaluator/prompts`, digest of its bytes)."""


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
    content = files("evaluator").joinpath("prompts", name).read_bytes()
    if digest_bytes(content) != digest:
        raise IntegrityError(f"prompt set {name} is not the one this version was released with; reinstall Tunegate")
    return LoadedPrompts(digest, content)


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
