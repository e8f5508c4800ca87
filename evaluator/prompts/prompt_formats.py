"""Reads the prompt sets that others publish, in their own formats, as items of our probes.

| format | published as | probes |
|---|---|---|
| `real_toxicity_prompts` | JSONL, Gehman et al. 2020 (arXiv 2009.11462) | `toxicity` |
| `ceb` | JSON, toxicity continuation of CEB, Wang et al. 2024 (arXiv 2407.02408) | `toxicity` |
| `strong_reject` | CSV, Souly et al. 2024 (arXiv 2402.10260) | `harmful_compliance` |
| `xstest` | CSV, Röttger et al. 2024 (arXiv 2308.01263) | `over_refusal` the safe, `harmful_compliance` the others |
| `betley` | YAML, Betley et al. 2025 (arXiv 2502.17424) | the probes that ask open questions |

A prompt's id is its place in the file, whose bytes are pinned; so it is unique and stays. Nothing is dropped but what a
table row says. Change what a converter gives, and the versions of its probes must be raised.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.question_files import read_question_file
from evaluator.prompts.requests import UserRequest
from evaluator.prompts.sentence_beginnings import IdentityGroup, SentenceBeginning
from policies.contract.probe_record import PromptFormat
from policies.errors import EvaluationError

Converter = Callable[[bytes], Sequence[PromptItem]]

SEVERE_FROM = 0.5
"""A prompt with this toxicity or severe toxicity (Perspective) belongs to the severe sub-set."""
CEB_GROUPS: Mapping[str, IdentityGroup] = {
    "age": "age",
    "gender": "gender",
    "gender_and_sex": "gender",
    "race": "race",
    "race_ethnicity": "race",
    "religion": "religion",
}
"""The publisher's `axis` → our identity group."""


class _Published(BaseModel):
    """The fields that are read of a published prompt; others are left alone."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _ScoredText(_Published):
    text: str = Field(min_length=1)
    toxicity: float | None = None
    severe_toxicity: float | None = None


class _ToxicityPrompt(_Published):
    prompt: _ScoredText
    challenging: bool

    @property
    def is_severe(self) -> bool:
        scores = (self.prompt.toxicity or 0, self.prompt.severe_toxicity or 0)
        return self.challenging or max(scores) >= SEVERE_FROM


class _CebPrompt(_Published):
    prompt: str = Field(min_length=1)
    axis: str


class _StrongRejectRow(_Published):
    category: str = Field(min_length=1)
    forbidden_prompt: str = Field(min_length=1)


class _XsTestRow(_Published):
    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    type: str = Field(min_length=1)
    label: Literal["safe", "unsafe"]


_SURPLUS = "surplus"
"""Stands for the cells of a CSV row beyond its header."""
RowT = TypeVar("RowT", bound=_Published)


def real_toxicity_prompts(content: bytes) -> list[SentenceBeginning]:
    """Severe are prompts that are toxic themselves or marked as challenging; a score that is null counts as none."""
    rows = [_row(_ToxicityPrompt, line, f"line {number}") for number, line in enumerate(content.splitlines(), start=1)]
    return [
        SentenceBeginning(id=f"rtp-{number}", subset="severe" if row.is_severe else "general", prompt=row.prompt.text)
        for number, row in enumerate(rows, start=1)
    ]


def ceb(content: bytes) -> list[SentenceBeginning]:
    """CEB asks for the continuation in an instruction, so its prompts are put as chat turns."""
    items = []
    for number, entry in enumerate(_list(content), start=1):
        row = _row(_CebPrompt, entry, f"entry {number}")
        group = CEB_GROUPS.get(row.axis)
        if group is None:
            raise EvaluationError(f"entry {number}: axis: {row.axis!r} is not one of {', '.join(CEB_GROUPS)}")
        identity = SentenceBeginning(
            id=f"ceb-{group}-{number}", subset="identity", identity=group, prompt=row.prompt, is_instruction=True
        )
        items.append(identity)
    return items


def strong_reject(content: bytes) -> list[UserRequest]:
    return [
        UserRequest(id=f"strong-reject-{number}", category=row.category, prompt=row.forbidden_prompt)
        for number, row in enumerate(_csv_rows(_StrongRejectRow, content), start=1)
    ]


def xstest(content: bytes, *, label: Literal["safe", "unsafe"]) -> list[UserRequest]:
    """The prompts of one label; the other ones belong to another probe."""
    rows = [row for row in _csv_rows(_XsTestRow, content) if row.label == label]
    return [UserRequest(id=f"xstest-{row.id}", category=row.type, prompt=row.prompt) for row in rows]


CONVERTERS: Mapping[tuple[PromptFormat, str], Converter] = {
    ("real_toxicity_prompts", "toxicity"): real_toxicity_prompts,
    ("ceb", "toxicity"): ceb,
    ("strong_reject", "harmful_compliance"): strong_reject,
    ("xstest", "harmful_compliance"): partial(xstest, label="unsafe"),
    ("xstest", "over_refusal"): partial(xstest, label="safe"),
    ("betley", "emergent_misalignment"): read_question_file,
}
"""(format, probe) → its converter."""


def convert(content: bytes, format_name: PromptFormat, probe: str) -> bytes:
    """A published file as a JSONL prompt set of `probe`.

    Raises:
        EvaluationError: the format is not for this probe, or the file is not in it; the message names line and field.
    """
    if format_name == "tunegate":
        return content
    converter = CONVERTERS.get((format_name, probe))
    if converter is None:
        fitting = [name for name, other in CONVERTERS if other == probe]
        raise EvaluationError(
            f"prompt sets of format {format_name} are not for {probe}; it reads {', '.join(['tunegate', *fitting])}"
        )
    try:
        items = converter(content)
    except EvaluationError as error:
        raise EvaluationError(f"{format_name} prompt set: {error}") from error
    if not items:
        raise EvaluationError(f"{format_name} prompt set: it has no prompts for {probe}")
    return b"\n".join(item.model_dump_json(exclude_defaults=True).encode() for item in items)


def _row(model: type[RowT], value: object, where: str) -> RowT:
    """`value` as a row: JSON bytes or a mapping."""
    try:
        return model.model_validate_json(value) if isinstance(value, bytes) else model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise EvaluationError(f"{where}: {field + ': ' if field else ''}{first['msg']}") from error


def _list(content: bytes) -> list[object]:
    try:
        return TypeAdapter(list[object]).validate_json(content)
    except ValidationError as error:
        raise EvaluationError(f"the file is not a JSON list: {error.errors()[0]['msg']}") from error


def _csv_rows(model: type[RowT], content: bytes) -> Iterable[RowT]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EvaluationError(f"byte {error.start} is not UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_SURPLUS, strict=True)
    try:
        for row in reader:
            if _SURPLUS in row:
                raise EvaluationError(f"line {reader.line_num}: it has more fields than the header")
            yield _row(model, {name: value for name, value in row.items() if value}, f"line {reader.line_num}")
    except csv.Error as error:
        raise EvaluationError(f"after line {reader.line_num}: {error}") from error
