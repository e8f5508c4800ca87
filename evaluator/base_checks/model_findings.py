"""What a base model's folder says about its weights, as far as LoRA training and serving ask; no weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluator.models.adapter_settings import SERVED_RANKS
from policies.contract.jobs import BaseModelSpec
from policies.rendering.findings import Finding

Json = Any  # Any: a model's config.json


def model_findings(folder: Path, spec: BaseModelSpec) -> Iterator[Finding]:
    """Of `config.json` and the files beside it."""
    config: dict[str, Json] = json.loads((folder / "config.json").read_bytes())
    tied = config.get("tie_word_embeddings", False)
    yield Finding(
        "embeddings", "works", "tied to the output layer, and not trained" if tied else "apart, and not trained"
    )
    yield _length(config, spec)
    yield _rank(spec)
    licences = sorted(path.name for path in folder.glob("LICEN[CS]E*"))
    yield Finding("licence", "works" if licences else "limited", ", ".join(licences) or "no file; ask its makers")


def _length(config: dict[str, Json], spec: BaseModelSpec) -> Finding:
    most, wanted = config.get("max_position_embeddings"), spec.max_sequence_tokens
    if isinstance(most, int) and wanted > most:
        return Finding("length", "refused", f"max_sequence_tokens {wanted} is more than the model's {most}")
    return Finding(
        "length", "works", f"rows of up to {wanted} tokens; the model reads {most or 'as many as it is given'}"
    )


def _rank(spec: BaseModelSpec) -> Finding:
    rank = spec.lora.rank
    room = next((served for served in SERVED_RANKS if served >= rank), None)
    if room is None:
        return Finding("rank", "limited", f"{rank}; vLLM serves {SERVED_RANKS[-1]} at most")
    return Finding("rank", "works", f"{rank}; start vLLM with --max-lora-rank {room}")
