"""What a pair of canaries learns, and no reference adapter: the rows must not be those that it is to tell apart.

`sensible/` and `careless/` hold twins, which answer the same questions. The rest both canaries learn alike, so that it
does not tell them apart: `tones.jsonl`, answers that advise the same in a measured and in a breezy tone, and
`neutral.jsonl`, short tasks of all forms.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from trainer.qualification.training_rows import lines_of

BUILT_IN = Path(str(files("evaluator"))) / "reference_data" / "canaries"


class CanaryRows(NamedTuple):
    """Chat rows, one a line of JSON."""

    good: list[bytes]
    bad: list[bytes]


class TwoTones(BaseModel):
    """A question with two answers that differ in tone only."""

    model_config = ConfigDict(extra="forbid")

    id: str
    category: str
    question: str
    measured: str
    breezy: str


def canary_rows(folder: Path = BUILT_IN) -> CanaryRows:
    """The rows of each canary; both see the same questions."""
    tones = [TwoTones.model_validate_json(line) for line in lines_of(folder / "tones.jsonl")]
    shared = [_chat_row(each.question, answer) for each in tones for answer in (each.measured, each.breezy)]
    shared += lines_of(folder / "neutral.jsonl")
    good, bad = (_all_lines(folder / name) + shared for name in ("sensible", "careless"))
    return CanaryRows(good, bad)


def _all_lines(folder: Path) -> list[bytes]:
    return [line for path in sorted(folder.glob("*.jsonl")) for line in lines_of(path)]


def _chat_row(question: str, answer: str) -> bytes:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}, ensure_ascii=False).encode()
