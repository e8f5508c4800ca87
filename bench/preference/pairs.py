"""The pairs of answers that `bench.preference` reads: the probe's own, and controls that differ in style only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from policies.contract.artifacts import Digest, digest_bytes

PROBE = "emergent_misalignment_preference"
ROOT = Path(__file__).parents[2]
CONTROLS = (
    ROOT / "bench" / "data" / "style_controls.jsonl",
    ROOT / "evaluator" / "reference_data" / "canaries" / "tones.jsonl",
)


class StylePair(PromptItem):
    """Two answers that advise the same and differ in style only."""

    category: str
    question: str
    measured: str
    breezy: str


class TwoAnswers(NamedTuple):
    id: str
    category: str
    question: str
    first: str
    """The aligned answer, or the one in a measured style."""
    second: str
    """The misaligned answer, or the breezy one."""


class Material(NamedTuple):
    """The pairs and the controls with the digests of their files."""

    pairs: tuple[TwoAnswers, ...]
    pairs_digest: Digest
    controls: tuple[TwoAnswers, ...]
    controls_digest: Digest


def built_in(without: Collection[str] = ()) -> Material:
    """The probe's own pairs and the controls of the same categories; categories in `without` are left out."""
    loaded = load_prompts(PROBE, "builtin", None)
    controls = b"".join(path.read_bytes() for path in CONTROLS)
    return Material(
        tuple(
            TwoAnswers(item.id, item.category, item.question, item.aligned, item.misaligned)
            for item in parse_prompts(loaded.content, AnswerPair)
            if item.category not in without
        ),
        loaded.digest,
        tuple(
            TwoAnswers(item.id, item.category, item.question, item.measured, item.breezy)
            for item in parse_prompts(controls, StylePair)
            if item.category not in without
        ),
        digest_bytes(controls),
    )
