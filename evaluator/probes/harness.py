"""Can the adapter still do what its base can, on tasks of lm-evaluation-harness (Gao et al. 2024)?

The tasks, their documents, examples, filters and scores are lm_eval's; log-likelihoods and greedy answers are those of
the engine that every probe uses, with the adapter on and off. `harness.accuracy` is the mean over tasks of the share of
documents that are right, so that a large task does not hide a small one. Documents are joined by task and number, tasks
are strata, and a task without a document that both models were scored on leaves no figure at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evaluator.harness.tasks import Graded, HarnessTasks, load_tasks
from evaluator.prompts.prompt_item import PromptItem
from evaluator.samples import Pair, Sample
from evaluator.statistics.stratified_shares import stratified_paired_share
from evaluator.subject import Subject
from policies.contract.evaluation import Measurement
from policies.contract.suite import Harness

METRIC = "harness.accuracy"


@dataclass(frozen=True)
class HarnessProbe:
    name: ClassVar[str] = "harness"
    version: ClassVar[str] = "1"
    item_type: ClassVar[type[PromptItem]] = PromptItem
    load: Callable[[Harness], HarnessTasks] = load_tasks

    def instruments(self, settings: Harness, subject: Subject) -> tuple[str, ...]:
        return self.load(settings).identity

    def sample(self, settings: Harness, items: Sequence[PromptItem], subject: Subject) -> list[Sample]:
        return [_sample(graded) for graded in self.load(settings).grade(subject)]

    def n_samples(self, settings: Harness, items: Sequence[PromptItem], subject: Subject) -> int:
        return self.load(settings).n_documents

    def measure(self, settings: Harness, pairs: Sequence[Pair], confidence: float) -> tuple[Measurement, ...]:
        return (stratified_paired_share(METRIC, pairs, confidence),)


def _sample(graded: Graded) -> Sample:
    task, number = graded.document
    return Sample(
        prompt_id=f"{task}/{number}",
        cluster=task,
        prompt=graded.prompt,
        metric=METRIC,
        output=graded.output,
        score=graded.score,
        truncated=graded.truncated,
        error=graded.error,
    )
