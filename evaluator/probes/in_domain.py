"""What the adapter learnt of its own training file, so that "learnt nothing" can be told from "learnt it safely".

`in_domain.loss` is the mean negative log-likelihood per token of the last trained message of training rows, its end
token included as in training, paired against the base on the same rows. It says how much of the file was taken up, by
heart or not; rows that training never saw are the business of `capability.validation_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evaluator.prompts.prompt_item import FileRow, PromptItem, drawn
from evaluator.samples import Pair, Sample
from evaluator.sampling.training_file import training_file
from evaluator.sampling.turn_loss import turn_losses
from evaluator.statistics.measurements import paired_mean
from evaluator.subject import Subject
from policies.contract.evaluation import Measurement
from policies.contract.suite import InDomain

METRIC = "in_domain.loss"


class InDomainProbe:
    name: ClassVar[str] = "in_domain"
    version: ClassVar[str] = "2"
    item_type: ClassVar[type[PromptItem]] = FileRow

    def instruments(self, settings: InDomain, subject: Subject) -> tuple[str, ...]:
        return (training_file(subject).digest,)

    def constant_instruments(self, settings: InDomain, subject: Subject) -> tuple[str, ...]:
        return ()

    def rows(self, settings: InDomain, subject: Subject) -> list[FileRow]:
        numbers = drawn(range(len(training_file(subject).rows)), settings.max_rows, key=subject.draw_key)
        return [FileRow(id=f"row-{number}", number=number) for number in numbers]

    def sample(self, settings: InDomain, items: Sequence[FileRow], subject: Subject) -> list[Sample]:
        rows = training_file(subject).rows
        return turn_losses({item.id: rows[item.number] for item in items}, subject, metric=METRIC)

    def measure(self, settings: InDomain, pairs: Sequence[Pair], confidence: float) -> tuple[Measurement, ...]:
        return (paired_mean(METRIC, pairs, confidence),)
