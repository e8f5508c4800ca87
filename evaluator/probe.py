"""What a probe is: it samples one model on pinned prompts, and measures adapter against base from paired samples.

Sampling needs the model and is cached for the base; measuring is pure. A probe never sees the gate, a rule or a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, TypeVar

from pydantic import Field

from evaluator.backend import Advance, Backend, Choices, Generation, GenerationSettings, Likelihood, Prompt, silent
from evaluator.classifier import ToxicityClassifier
from policies.contract.artifacts import Digest, Record
from policies.contract.dataset_rows import ChatRow
from policies.contract.evaluation import Measurement
from policies.errors import EvaluationError


class PromptItem(Record):
    """One prompt of a prompt set; probes add their fields."""

    id: str = Field(min_length=1)


class Sample(Record):
    """What one model did on one prompt, and its score."""

    prompt_id: str
    cluster: str
    """Prompts of one cluster are not independent of each other."""
    prompt: str
    series: str
    """The metric that the score counts for."""
    output: str | None = None
    score: float | None
    weight: float = 1.0
    """What the score is a sum over, e.g. tokens."""
    truncated: bool = False
    error: str | None = None
    """Why there is no score."""


class Pair(NamedTuple):
    """The samples of adapter and base on one prompt."""

    adapter: Sample
    base: Sample

    @property
    def is_scored(self) -> bool:
        return self.adapter.score is not None and self.base.score is not None


@dataclass(frozen=True)
class ValidationRows:
    """The job's validation file: its digest and its rows."""

    digest: Digest
    rows: Sequence[ChatRow]


@dataclass
class Subject:
    """A model under test: the engine with the adapter on or off. Equal generation requests are answered once."""

    backend: Backend
    adapter: bool
    seed: int
    advance: Advance = silent
    classifiers: Callable[[str, Sequence[str]], ToxicityClassifier] | None = None
    validation: ValidationRows | None = None
    _answers: dict[tuple[tuple[Prompt, ...], GenerationSettings], list[Generation]] = field(
        default_factory=dict, init=False
    )

    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[Generation]:
        key = (tuple(prompts), settings)
        if key not in self._answers:
            self._answers[key] = self.backend.generate(prompts, settings, adapter=self.adapter, advance=self.advance)
        return self._answers[key]

    def log_likelihood(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        return self.backend.log_likelihood(questions, adapter=self.adapter, advance=self.advance)

    def base_log_likelihood(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """Likelihood under the base model, whichever model is under test: the base as a measuring instrument."""
        return self.backend.log_likelihood(questions, adapter=False)

    def classifier(self, name: str, toxic_labels: Sequence[str]) -> ToxicityClassifier:
        if self.classifiers is None:
            raise EvaluationError("no toxicity classifier can be loaded here")
        return self.classifiers(name, toxic_labels)


SettingsT = TypeVar("SettingsT", bound=Record, contravariant=True)
ItemT = TypeVar("ItemT", bound=PromptItem, contravariant=True)


class Probe(Protocol[SettingsT, ItemT]):
    """One measurement. Subclass nothing: a probe is an object with these members, listed in `evaluator.suite`."""

    name: ClassVar[str]
    version: ClassVar[str]
    """Raised whenever the same outputs could score differently."""
    item_type: ClassVar[type[PromptItem]]

    def instruments(self, settings: SettingsT, subject: Subject) -> tuple[str, ...]:
        """Identities of what scores depend on besides model, settings and prompts, e.g. a classifier's."""

    def sample(self, settings: SettingsT, items: Sequence[ItemT], subject: Subject) -> list[Sample]:
        """Run one model on every item."""

    def measure(self, settings: SettingsT, pairs: Sequence[Pair], confidence: float) -> tuple[Measurement, ...]:
        """Figures from the samples of adapter and base."""


def pair_samples(adapter: Sequence[Sample], base: Sequence[Sample]) -> tuple[Pair, ...]:
    """Adapter and base samples of the same prompts, in order; anything else is an error."""
    keys = [[(sample.series, sample.prompt_id) for sample in samples] for samples in (adapter, base)]
    if keys[0] != keys[1] or len(set(keys[0])) != len(keys[0]):
        raise EvaluationError("adapter and base were not sampled on the same prompts")
    if not adapter:
        raise EvaluationError("the probe produced no samples")
    return tuple(Pair(a, b) for a, b in zip(adapter, base, strict=True))
