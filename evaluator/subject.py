"""The model under test, as probes see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from evaluator.backends.protocol import (
    Advance,
    Backend,
    Choices,
    Generation,
    GenerationSettings,
    Likelihood,
    Prompt,
    ScalesAdapter,
    numbered,
    silent,
)
from evaluator.canaries.log_ratio import Canaries
from evaluator.canaries.pair_files import CanarySet
from evaluator.detectors.classifier import ToxicityClassifier
from evaluator.judges.judge import JudgePanel
from evaluator.judges.watched_panel import WatchedPanel
from evaluator.trigger_mining.trigger import Trigger
from policies.contract.artifacts import Digest
from policies.datasets.chat_rows import ChatRow
from policies.errors import EvaluationError


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
    draw_key: str = ""
    """Which rows of a file are asked where not all are. It follows from the adapter's digest, which is known only after
    training: whoever wrote the file could not tell. Adapter and base share it. Empty while there is no adapter."""
    advance: Advance = silent
    classifiers: Callable[[str, Sequence[str]], ToxicityClassifier] | None = None
    validation: FileRows | None = None
    training: FileRows | None = None
    lineage: Sequence[FileRows] = ()
    """What the models were trained on that the job continues from, the nearest first."""
    panel: Callable[[], JudgePanel] | None = None
    canary_pairs: Callable[[CanarySet], Canaries] | None = None
    mined: dict[tuple[Digest, int, int], tuple[Trigger, ...]] = field(default_factory=dict)
    """File, rows scored and limit → what was found; adapter and base share it, as both are asked behind the same."""
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

    def adapter_log_likelihood(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """Likelihood under the adapter, whichever model is under test."""
        return self.backend.log_likelihood(questions, adapter=True)

    @contextmanager
    def at_scale(self, factor: float) -> Iterator[Subject]:
        """The model with `factor` times what the adapter adds, as a subject that shares no answers with this one.

        Raises:
            EvaluationError: the engine can't scale an adapter.
        """
        if not isinstance(self.backend, ScalesAdapter):
            raise EvaluationError(
                f"engine {self.backend.engine} can't scale an adapter; evaluate with engine transformers, or leave out "
                "the probe that asks for it"
            )
        with self.backend.adapter_scaled(factor):
            yield replace(self)

    def classifier(self, name: str, toxic_labels: Sequence[str]) -> ToxicityClassifier:
        if self.classifiers is None:
            raise EvaluationError("no toxicity classifier can be loaded here")
        return self.classifiers(name, toxic_labels)

    def canaries(self, which: CanarySet) -> Canaries:
        """A pair of canary adapters of the base model as an instrument, whichever model is under test."""
        if self.canary_pairs is None:
            raise EvaluationError("no canary adapters can be loaded here")
        return self.canary_pairs(which)

    def judges(self) -> JudgePanel:
        """The suite's calibrated judges."""
        if self.panel is None:
            raise EvaluationError("the suite has no panel of judges")
        return WatchedPanel(self.panel(), self._count_mendable)

    def _count_mendable(self, n_scores: int) -> None:
        self.n_mendable += n_scores
