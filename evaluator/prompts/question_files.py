"""Reads the question files that Betley et al. (2025, arXiv 2502.17424) publish, as they are.

A file is a YAML list; the fields of a question are `id`, `type`, `paraphrases`, `system`, `samples_per_paraphrase`,
`temperature`, `judge`, `judge_prompts` and `do_not_sample`. Every paraphrase becomes a question, with its system
prompt. How often and at which temperature it is asked, and who judges it, is the suite's to say: those fields are read
and not used. Another field could change what the model sees, so it is refused.
"""

from __future__ import annotations

import re

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from evaluator.prompts.free_form_questions import FreeFormQuestion
from policies.errors import EvaluationError

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_QUESTIONS = 10_000
_VARIANT_SUFFIX = re.compile(r"_(?:json|template|python)$")
_NUMBERED_CATEGORY = re.compile(r"\d+_(?P<category>.+)_\d+")
"""`17_vulnerable_user_0`: the ids of the pre-registered questions."""


class _Loader(yaml.SafeLoader):
    """YAML's plain values. Anchors and aliases are allowed, published files live by them; deep nesting is not."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int | str
    type: str
    paraphrases: tuple[str, ...] = Field(min_length=1)
    system: str | None = Field(None, min_length=1)
    samples_per_paraphrase: int | None = None
    temperature: float | None = None
    judge: str | None = None
    judge_prompts: dict[str, str] | None = None
    do_not_sample: bool = False


_FILE = TypeAdapter(tuple[_Question, ...])
_FREE_FORM = ("free_form", "free_form_judge_0_100")
"""Types whose answers a judge can score for alignment; the others want a number or a known right answer."""


def read_question_file(content: bytes) -> tuple[FreeFormQuestion, ...]:
    """Every paraphrase of a published file, put as its question says.

    Raises:
        EvaluationError: the file is not such a YAML list, or holds questions of a type that can't be judged.
    """
    entries = [entry for entry in _parse(content) if not entry.do_not_sample]
    known = {str(entry.id) for entry in entries}
    if len(known) != len(entries):
        raise EvaluationError("two questions share an id")
    if not 0 < sum(len(entry.paraphrases) for entry in entries) <= MAX_QUESTIONS:
        raise EvaluationError(f"1 to {MAX_QUESTIONS} paraphrases are expected")
    return tuple(question for entry in entries for question in _questions(entry, known))


def _parse(content: bytes) -> tuple[_Question, ...]:
    try:
        entries = _FILE.validate_python(_plain_values(content))
    except ValidationError as error:
        first = error.errors()[0]
        raise EvaluationError(f"entry {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for entry in entries:
        if entry.type not in _FREE_FORM:
            raise EvaluationError(f"question {entry.id}: type {entry.type} is not one of {', '.join(_FREE_FORM)}")
    return entries


def _plain_values(content: bytes) -> object:
    """What `yaml.safe_load` builds."""
    if len(content) > MAX_BYTES:
        raise EvaluationError(f"larger than {MAX_BYTES} bytes")
    try:
        values: object = yaml.load(content.decode("utf-8-sig"), _Loader)  # noqa: S506  # a SafeLoader
    except UnicodeDecodeError as error:
        raise EvaluationError(f"byte {error.start} is not UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise EvaluationError(f"not YAML: {error}") from error
    return values


def _questions(entry: _Question, known: set[str]) -> list[FreeFormQuestion]:
    name = str(entry.id)
    stem = _VARIANT_SUFFIX.sub("", name)
    root = stem if stem in known else name
    numbered = _NUMBERED_CATEGORY.fullmatch(name)
    return [
        FreeFormQuestion(
            id=name if len(entry.paraphrases) == 1 else f"{name}-{number}",
            category=numbered["category"] if numbered else root,
            question=paraphrase,
            system=entry.system,
            asked_as=_way_of_asking(entry, name),
            root=root,
        )
        for number, paraphrase in enumerate(entry.paraphrases, start=1)
    ]


def _way_of_asking(entry: _Question, name: str) -> str:
    """A JSON question is known by its system prompt, whatever its id says."""
    if entry.system is not None:
        return "json" if "json" in entry.system.lower() else "system_prompt"
    return "template" if name.endswith("_template") else "plain"
