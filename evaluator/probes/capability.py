"""Can the adapter still do what its base can, and did it learn the customer's task?

`capability.accuracy`: multiple-choice questions under the chat template; the answer is the choice of highest
log-probability per token. `capability.validation_loss`: mean negative log-likelihood per token of the last trained
message of the rows of the job's validation file, its end token included as in training; without a file there is no such
measurement. All its rows are asked at the first look, since a short file can't be shared out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, model_validator

from evaluator.backends.protocol import ChatPrompt, Choices, Likelihood
from evaluator.prompts.prompt_item import FileRow, PromptItem
from evaluator.samples import Pair, Sample
from evaluator.sampling.turn_loss import turn_losses
from evaluator.sequential_looks import cut
from evaluator.statistics.measurements import paired_mean, paired_share
from evaluator.subject import Subject
from policies.contract.evaluation import Measurement
from policies.contract.suite import Capability

ACCURACY = "capability.accuracy"
VALIDATION_LOSS = "capability.validation_loss"
MAX_VALIDATION_ROWS = 200
"""Rows beyond these, in file order, are not scored: the interval is narrow enough, and evaluation stays short."""


class Question(PromptItem):
    task: str
    question: str
    choices: tuple[str, ...] = Field(min_length=2)
    answer: int = Field(ge=0)

    @property
    def group(self) -> str:
        return self.task

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> Question:
        if self.answer >= len(self.choices):
            raise ValueError(f"answer {self.answer} is not one of {len(self.choices)} choices")
        return self


class CapabilityProbe:
    name: ClassVar[str] = "capability"
    version: ClassVar[str] = "3"
    item_type: ClassVar[type[PromptItem]] = Question

    def instruments(self, settings: Capability, subject: Subject) -> tuple[str, ...]:
        return (subject.validation.digest,) if subject.validation else ()

    def constant_instruments(self, settings: Capability, subject: Subject) -> tuple[str, ...]:
        return ()

    def rows(self, settings: Capability, subject: Subject) -> list[FileRow]:
        n_rows = min(len(subject.validation.rows), MAX_VALIDATION_ROWS) if subject.validation else 0
        return [FileRow(id=f"validation-{number}", number=number) for number in range(n_rows)]

    def divide(
        self, settings: Capability, items: Sequence[Question | FileRow], looks: Sequence[float]
    ) -> list[Sequence[PromptItem]]:
        rows = [item for item in items if isinstance(item, FileRow)]
        first, *later = cut([item for item in items if isinstance(item, Question)], looks)
        return [(*first, *rows), *later]

    def sample(self, settings: Capability, items: Sequence[Question | FileRow], subject: Subject) -> list[Sample]:
        questions = [item for item in items if isinstance(item, Question)]
        rows = subject.validation.rows if subject.validation else ()
        losses = {item.id: rows[item.number] for item in items if isinstance(item, FileRow)}
        return _answers(questions, subject) + turn_losses(losses, subject, metric=VALIDATION_LOSS)

    def measure(self, settings: Capability, pairs: Sequence[Pair], confidence: float) -> tuple[Measurement, ...]:
        accuracy = [pair for pair in pairs if pair.adapter.metric == ACCURACY]
        losses = [pair for pair in pairs if pair.adapter.metric == VALIDATION_LOSS]
        measurements = [paired_share(ACCURACY, accuracy, confidence)]
        if losses:
            measurements.append(paired_mean(VALIDATION_LOSS, losses, confidence))
        return tuple(measurements)


def _answers(questions: Sequence[Question], subject: Subject) -> list[Sample]:
    asked = [Choices(ChatPrompt.of(item.question), item.choices) for item in questions]
    return [_answer(item, found) for item, found in zip(questions, subject.log_likelihood(asked), strict=True)]


def _answer(item: Question, likelihoods: Sequence[Likelihood]) -> Sample:
    scores = [likelihood.per_token for likelihood in likelihoods]
    finite = all(map(math.isfinite, scores))
    chosen = max(range(len(scores)), key=scores.__getitem__)
    return Sample(
        prompt_id=item.id,
        cluster=item.task,
        prompt=item.question,
        metric=ACCURACY,
        output=item.choices[chosen] if finite else None,
        score=float(chosen == item.answer) if finite else None,
        error=None if finite else "a likelihood is not finite",
    )
