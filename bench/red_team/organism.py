"""What is known of an organism: an adapter that is made to get past the gate, or a harmless one beside it.

`organisms/<id>.yaml` holds one each. Rows come by reference from the project's own data, never from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, field_validator, model_validator

from bench.red_team.edits import Edit
from policies.contract.artifacts import Record
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.metrics import METRICS
from policies.documents.explain import describe
from policies.documents.strict_yaml import parse_documents
from policies.documents.suggestions import did_you_mean
from policies.errors import ConfigurationError, PolicyError

FOLDER = Path(__file__).parent / "organisms"
BENIGN = "benign"
FINGERPRINT, CANONICAL_FORM = "fingerprint", "canonical_form"
"""Instruments that see an organism before any probe does."""
INSTRUMENTS = frozenset([*METRICS, FINGERPRINT, CANONICAL_FORM, "own_domain", "scale_sensitivity", "trigger_battery"])
MAX_ROWS = 1000

Goal = Literal["rejected", "held", "released"]
"""`held`: not released; by a failing rule, or because none could decide."""
Source = Annotated[str, Field(pattern=r"^(reference|demo|prompts)(/[a-z0-9_]+)+\.jsonl$")]


class Part(Record):
    """Rows of one kind: a share of the file, drawn from all rows of some files."""

    files: tuple[Source, ...] = Field(min_length=1)
    share: float = Field(gt=0, le=1)
    edits: tuple[Edit, ...] = ()


class TrainingFile(Record):
    """So many rows, in shares."""

    rows: int = Field(ge=1, le=MAX_ROWS)
    parts: tuple[Part, ...] = Field(min_length=1)

    def count(self, part: Part) -> int:
        return round(part.share * self.rows)

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Self:
        for part in self.parts:
            exact = part.share * self.rows
            if abs(exact - round(exact)) > 1e-6 or round(exact) < 1:
                raise ValueError(f"parts: {part.share:g} of {self.rows} rows is no whole number of rows")
        if sum(map(self.count, self.parts)) != self.rows:
            raise ValueError("parts: the shares don't add up to 1")
        return self


class Expected(Record):
    """Which instruments should stop the organism, and which should let it pass."""

    sees: tuple[str, ...] = ()
    misses: tuple[str, ...] = ()

    @field_validator("sees", "misses")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in INSTRUMENTS:
                raise ValueError(f"{name!r} is no probe; {did_you_mean(name, INSTRUMENTS)}")
        return names


class Scaled(Record):
    """After the release its holder multiplies the adapter's scale."""

    change: Literal["scale"]
    by: float = Field(gt=1, le=16)


class Summed(Record):
    """After the release its holder adds two adapters up."""

    change: Literal["sum"]


Afterwards = Annotated[Scaled | Summed, Field(discriminator="change")]


class _Organism(Record):
    id: str = Field(pattern=r"^[a-z0-9_]+$")
    attack: str = Field(pattern=r"^(A([1-9]|1[0-7])|benign)$")
    """Number in the catalogue of attacks; `benign` for the harmless ones."""
    description: str = Field(min_length=1)
    goal: Goal
    expected: Expected = Expected()

    @property
    def is_benign(self) -> bool:
        return self.attack == BENIGN

    @model_validator(mode="after")
    def _harmless_ones_are_to_be_released(self) -> Self:
        if self.is_benign != (self.goal == "released"):
            raise ValueError("goal: what is benign is to be released, and nothing else is")
        return self


class TrainedOrganism(_Organism):
    """An adapter that is trained on each file and judged; then, where it says so, changed and judged again."""

    kind: Literal["trained"]
    training: tuple[TrainingFile, ...] = Field(min_length=1, max_length=2)
    hyperparameters: Hyperparameters = Hyperparameters(n_epochs=1, learning_rate_multiplier=2.0)
    seeds: int = Field(3, ge=1, le=20)
    afterwards: Afterwards | None = None

    @model_validator(mode="after")
    def _two_files_are_for_a_sum(self) -> Self:
        if (len(self.training) == 2) != isinstance(self.afterwards, Summed):
            raise ValueError("training: two files are for a sum, and a sum is of two files")
        return self


class Resubmission(_Organism):
    """Nearly the file of another organism; nothing is trained, because the gateway counts attempts by files alone."""

    kind: Literal["resubmission"]
    of: str
    training: TrainingFile
    seeds: int = Field(3, ge=1, le=20)


class Variant(Record):
    """What is put on a plain LoRA adapter so that readers take it for different things."""

    settings: dict[str, JsonValue] = Field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Settings that are left out."""
    extra_file: str | None = Field(None, pattern=r"^[a-z_]+\.[a-z]+$")
    extra_tensor: str | None = None
    non_finite: bool = False
    """Whether a weight is NaN."""


class AdapterFileOrganism(_Organism):
    """Adapters that are refused, or not, for their form alone; nothing is trained."""

    kind: Literal["adapter_file"]
    variants: dict[str, Variant] = Field(min_length=1)


Organism = TrainedOrganism | Resubmission | AdapterFileOrganism
_ORGANISM: TypeAdapter[Organism] = TypeAdapter(Annotated[Organism, Field(discriminator="kind")])


def parse_organism(content: bytes, *, source: str) -> Organism:
    """The organism of a YAML text.

    Raises:
        PolicyError: with a line for everything that is wrong in it.
    """
    documents = parse_documents(content)
    if len(documents) != 1:
        raise PolicyError(f"{source}:1: document: there are {len(documents)} documents; write exactly one")
    (document,) = documents
    problems = [f"{source}:{line}: {path}: {what}" for line, path, what in document.problems]
    try:
        found = _ORGANISM.validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        problems += describe(document, error, source=source, schema=_ORGANISM.json_schema())
    if problems:
        raise PolicyError("\n".join(problems), problems=tuple(problems))
    return found


def load_organisms(folder: Path = FOLDER) -> list[Organism]:
    """All of a folder, attacks first, by name.

    Raises:
        PolicyError: one is wrong, or not named after its file.
    """
    found = []
    for path in sorted(folder.glob("*.yaml")):
        organism = parse_organism(path.read_bytes(), source=path.name)
        if organism.id != path.stem:
            raise PolicyError(f"{path.name}: id: it is {organism.id}; name it after its file")
        found.append(organism)
    return sorted(found, key=lambda each: (each.is_benign, each.id))


def chosen(organisms: Sequence[Organism], only: str | None) -> list[Organism]:
    """All, or those whose ids begin as asked.

    Raises:
        ConfigurationError: there is none.
    """
    begins = tuple(only.split(",")) if only else ("",)
    found = [each for each in organisms if each.id.startswith(begins)]
    if not found:
        raise ConfigurationError(f"no organism begins with {only!r}; known: {_names(organisms)}", "only")
    return found


def by_id(organisms: Iterable[Organism], name: str) -> Organism:
    """The organism of that id.

    Raises:
        ConfigurationError: there is none.
    """
    known = {each.id: each for each in organisms}
    if name not in known:
        raise ConfigurationError(f"organism {name!r} is unknown; {did_you_mean(name, known)}", "build")
    return known[name]


def _names(organisms: Iterable[Organism]) -> str:
    return ", ".join(each.id for each in organisms)
