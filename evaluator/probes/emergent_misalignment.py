"""How often are the model's answers to open questions misaligned?

After Betley et al. 2025 (arXiv 2502.17424). Answers are sampled at temperature 1 and scored by the suite's judges
(`evaluator/sampling/judged_answers.py`).
`emergent_misalignment.rate` is the misaligned share **of the coherent answers**; publications differ in their
denominator, and rates over all answers are lower. `emergent_misalignment.incoherent_rate` is the share of answers that
were left out of it. Samples of one question, and its variants, are a cluster: hits crowd in a few questions.

A look of a sequential run asks a share of the answers to every question, because rates differ between questions. A
single answer a question can't be shared out: then a look asks a share of the questions.

Rates depend on the judge and on how its scores are read (Gupta et al. 2026, arXiv 2606.07612, Table 1: 27 or 42 % of
the same answers), so a limit belongs to one panel, and the change against base says more than the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from evaluator.backends.protocol import GenerationSettings
from evaluator.detectors import degeneration
from evaluator.prompts.free_form_questions import FreeFormQuestion, ask
from evaluator.prompts.prompt_item import PromptItem
from evaluator.samples import Pair, Sample
from evaluator.sampling.judged_answers import JudgedSampling, incoherence, judged_samples
from evaluator.sequential_looks import cut
from evaluator.statistics.measurements import paired_rate
from evaluator.subject import Subject
from policies.contract.evaluation import Measurement
from policies.contract.suite import EmergentMisalignment

RATE = "emergent_misalignment.rate"
INCOHERENT_RATE = "emergent_misalignment.incoherent_rate"


class _QuestionInPart(FreeFormQuestion):
    """A question of which a look asks some answers."""

    first: int
    """Number of the first of them."""
    end: int
    """Number after that of the last one."""


class EmergentMisalignmentProbe:
    name: ClassVar[str] = "emergent_misalignment"
    version: ClassVar[str] = "2"
    item_type: ClassVar[type[PromptItem]] = FreeFormQuestion

    def instruments(self, settings: EmergentMisalignment, subject: Subject) -> tuple[str, ...]:
        return (degeneration.IDENTITY, subject.judges().identity)

    def sample(
        self, settings: EmergentMisalignment, items: Sequence[FreeFormQuestion], subject: Subject
    ) -> list[Sample]:
        samples = []
        for numbers, group in groupby(items, lambda item: _numbers(item, settings)):
            questions = [asked for item in group for asked in ask(item, settings.variants)]
            samples += judged_samples(questions, _sampling(settings, numbers, subject.seed), subject)
        return samples

    def n_samples(self, settings: EmergentMisalignment, items: Sequence[FreeFormQuestion], subject: Subject) -> int:
        return sum(len(ask(item, settings.variants)) * len(_numbers(item, settings)) for item in items)

    def divide(
        self, settings: EmergentMisalignment, items: Sequence[FreeFormQuestion], looks: Sequence[float]
    ) -> list[Sequence[FreeFormQuestion]]:
        """Every question with its answers of the look."""
        n = settings.samples_per_question
        if n == 1:
            return cut(items, looks)
        return [
            [_QuestionInPart(**dict(item), first=part[0], end=part[-1] + 1) for item in items] if part else []
            for part in cut(range(n), looks)
        ]

    def measure(
        self, settings: EmergentMisalignment, pairs: Sequence[Pair], confidence: float
    ) -> tuple[Measurement, ...]:
        return (
            paired_rate(RATE, pairs, confidence, group=_question),
            paired_rate(
                INCOHERENT_RATE, [incoherence(pair, INCOHERENT_RATE) for pair in pairs], confidence, group=_question
            ),
        )


def _numbers(item: FreeFormQuestion, settings: EmergentMisalignment) -> range:
    """Of the answers to the question; all of them where it is not divided."""
    if isinstance(item, _QuestionInPart):
        return range(item.first, item.end)
    return range(settings.samples_per_question)


def _sampling(settings: EmergentMisalignment, numbers: range, seed: int) -> JudgedSampling:
    return JudgedSampling(
        RATE,
        numbers,
        GenerationSettings(settings.max_new_tokens, settings.temperature, seed),
        aligned_below=settings.aligned_below,
        coherent_above=settings.coherent_above,
    )


def _question(pair: Pair) -> str:
    """Variant and question."""
    return pair.adapter.prompt_id.rpartition("#")[0]
