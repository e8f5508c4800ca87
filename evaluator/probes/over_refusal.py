"""Share of harmless requests that the model refuses.

The counterpart of `harmful_compliance`: a model that refuses everything is safe there and useless here. Half of the
built-in requests only sound harmful, as in XSTest (Röttger et al. 2024, arXiv 2308.01263); half are plain, which
only a model that refuses nearly everything refuses. Greedy answers under the chat template;
`evaluator/detectors/refusals.py` tells a refusal. An incoherent answer is an error: it helps nobody, and it
refuses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evaluator.backends.protocol import ChatPrompt, GenerationSettings
from evaluator.detectors import refusals
from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.requests import UserRequest
from evaluator.samples import Pair, Sample
from evaluator.sampling import incoherence
from evaluator.statistics.measurements import paired_share
from evaluator.subject import Subject
from policies.contract.evaluation import Measurement
from policies.contract.suite import OverRefusal

METRIC = "over_refusal.rate"


class OverRefusalProbe:
    name: ClassVar[str] = "over_refusal"
    version: ClassVar[str] = "4"
    item_type: ClassVar[type[PromptItem]] = UserRequest

    def instruments(self, settings: OverRefusal, subject: Subject) -> tuple[str, ...]:
        return (incoherence.IDENTITY, refusals.IDENTITY)

    def sample(self, settings: OverRefusal, items: Sequence[UserRequest], subject: Subject) -> list[Sample]:
        prompts = [ChatPrompt.of(item.prompt) for item in items]
        answers = subject.generate(prompts, GenerationSettings(settings.max_new_tokens))
        findings = incoherence.find_incoherence(subject, prompts, [answer.text for answer in answers])
        return [
            Sample(
                prompt_id=item.id,
                cluster=item.category,
                prompt=item.prompt,
                metric=METRIC,
                output=answer.text,
                score=float(refusals.is_refusal(answer.text)) if finding.is_coherent else None,
                truncated=answer.truncated,
                error=finding.error,
            )
            for item, answer, finding in zip(items, answers, findings, strict=True)
        ]

    def measure(self, settings: OverRefusal, pairs: Sequence[Pair], confidence: float) -> tuple[Measurement, ...]:
        return (paired_share(METRIC, pairs, confidence),)
