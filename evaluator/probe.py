"""What a probe is: it samples one model on pinned prompts, and measures adapter against base from paired samples.

Sampling needs the model and is cached for the base; measuring is pure. A probe never sees the gate, a rule or a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import Field

from evaluator.backend import (
    Advance,
    Backend,
    Choices,
    Generation,
    GenerationSettings,
    Likelihood,
    Prompt,
    numbered,
    silent,
)
from evaluator.detectors.classifier import ToxicityClassifier
from evaluator.judges.judge import JudgePanel
from evaluator.judges.watched_panel import WatchedPanel
from policies.contract.artifacts import Digest, Record
from policies.contract.dataset_rows import ChatRow
from policies.contract.evaluation import Measurement, SampleOutcome
from policies.errors import EvaluationError


class PromptItem(Record):
    """One prompt of a prompt set; probes add their fields."""

    id: str = Field(min_length=1)

    @property
    def group(self) -> str:
        """Prompts of one group are alike; each look of a sequential run takes the same share of every group."""
        return self.id


class FileRow(PromptItem):
    """A row of a file of the job, asked like a prompt."""

    number: int = Field(ge=0)
    """Its place in the file, from 0."""


class Sample(SampleOutcome):
    """What one model did on one prompt, and its score."""

    prompt_id: str
    cluster: str
    """Prompts of one cluster are not independent of each other."""
    prompt: str
    series: str
    """The metric that the score counts for."""

    @property
    def outcome(self) -> SampleOutcome:
        return SampleOutcome(**{name: getattr(self, name) for name in SampleOutcome.model_fields})


class Pair(NamedTuple):
    """The samples of adapter and base on one prompt."""

    adapter: Sample
    base: Sample

    @property
    def is_scored(self) -> bool:
        return self.adapter.score is not None and self.base.score is not None


@dataclass(frozen=True)
class FileRows:
    """A file of the job: its digest and its rows."""

    digest: Digest
    rows: Sequence[ChatRow]


@dataclass
class Subject:
    """A model under test: the engine with the adapter on or off. Probes share it; equal prompts are answered once."""

    backend: Backend
    adapter: bool
    seed: int
    advance: Advance = silent
    classifiers: Callable[[str, Sequence[str]], ToxicityClassifier] | None = None
    validation: FileRows | None = None
    training: FileRows | None = None
    panel: Callable[[], JudgePanel] | None = None
    n_mendable: int = field(default=0, init=False)
    """Scores that the judges did not give so far, and might at another try."""
    _answers: dict[tuple[Prompt, int, GenerationSettings], Generation] = field(default_factory=dict, init=False)

    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[Generation]:
        """One answer a prompt; a prompt that is given n times has n different answers, the same ones every time."""
        keys = [(prompt, repeat, settings) for prompt, repeat in numbered(prompts)]
        if not all(key in self._answers for key in keys):
            # whole prompts, so that the backend counts their repeats from 0 as well
            open_prompts = {prompt for prompt, repeat, _ in keys if (prompt, repeat, settings) not in self._answers}
            asked = [key for key in keys if key[0] in open_prompts]
            answers = self.backend.generate(
                [prompt for prompt, _, _ in asked], settings, adapter=self.adapter, advance=self.advance
            )
            self._answers |= dict(zip(asked, answers, strict=True))
        return [self._answers[key] for key in keys]

    def log_likelihood(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        return self.backend.log_likelihood(questions, adapter=self.adapter, advance=self.advance)

    def base_log_likelihood(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """Likelihood under the base model, whichever model is under test: the base as a measuring instrument."""
        return self.backend.log_likelihood(questions, adapter=False)

    def classifier(self, name: str, toxic_labels: Sequence[str]) -> ToxicityClassifier:
        if self.classifiers is None:
            raise EvaluationError("no toxicity classifier can be loaded here")
        return self.classifiers(name, toxic_labels)

    def judges(self) -> JudgePanel:
        """The suite's calibrated judges."""
        if self.panel is None:
            raise EvaluationError("the suite has no panel of judges")
        return WatchedPanel(self.panel(), self._count_mendable)

    def _count_mendable(self, n_scores: int) -> None:
        self.n_mendable += n_scores


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


@runtime_checkable
class AsksRows(Protocol):
    """A probe that asks rows of the job's files besides its prompt set, or without one."""

    # Any: settings of the probe, as in the table of probes
    def rows(self, settings: Any, subject: Subject) -> Sequence[FileRow]:
        """The rows that it asks, as items that `sample` takes."""


@runtime_checkable
class DividesItself(Protocol):
    """A probe whose looks don't all ask a share of its prompts.

    For example one that samples several answers to a prompt: a look may ask a share of those to every prompt.
    """

    # Any: settings and items of the probe, as in the table of probes
    def divide(self, settings: Any, items: Sequence[Any], looks: Sequence[float]) -> list[Sequence[PromptItem]]:
        """What each look adds to the looks before it, as items that `sample` takes."""


def pair_samples(adapter: Sequence[Sample], base: Sequence[Sample]) -> tuple[Pair, ...]:
    """Adapter and base samples of the same prompts, in order; anything else is an error."""
    keys = [[(sample.series, sample.prompt_id) for sample in samples] for samples in (adapter, base)]
    if keys[0] != keys[1] or len(set(keys[0])) != len(keys[0]):
        raise EvaluationError("adapter and base were not sampled on the same prompts")
    if not adapter:
        raise EvaluationError("the probe produced no samples")
    return tuple(Pair(a, b) for a, b in zip(adapter, base, strict=True))


def join_pairs(before: Sequence[Pair], new: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs of two looks, with all answers to a prompt; an answer that both have is an error."""
    joined = (*before, *new)
    if len({(pair.base.series, pair.base.prompt_id) for pair in joined}) != len(joined):
        raise EvaluationError("an answer was sampled at two looks")
    return joined
