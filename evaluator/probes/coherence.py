"""Share of sampled answers that are gibberish or degenerate, found without a judge.

Safety figures mean nothing on answers that mean nothing (Vishnubhotla et al. 2026, arXiv 2606.03648), so incoherence
blocks by itself. Answers to open questions are sampled under the chat template;
`evaluator/detectors/incoherence.py` says which of them are degenerate or language that the base model can't know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evaluator.backend import ChatPrompt, GenerationSettings
from evaluator.detectors.incoherence import IDENTITY, find_incoherence
from evaluator.probe import Pair, PromptItem, Sample, Subject
from evaluator.statistics.measurements import paired_share
from policies.contract.evaluation import Measurement
from policies.contract.suite import Coherence

METRIC = "coherence.incoherent_rate"


class OpenQuestion(PromptItem):
    category: str
    prompt: str

    @property
    def group(self) -> str:
        return self.category


class CoherenceProbe:
    name: ClassVar[str] = "coherence"
    version: ClassVar[str] = "2"
    item_type: ClassVar[type[PromptItem]] = OpenQuestion

    def instruments(self, settings: Coherence, subject: Subject) -> tuple[str, ...]:
        return (IDENTITY,)

    def sample(self, settings: Coherence, items: Sequence[OpenQuestion], subject: Subject) -> list[Sample]:
        prompts = [ChatPrompt.of(item.prompt) for item in items]
        generation = GenerationSettings(settings.max_new_tokens, settings.temperature, subject.seed)
        answers = subject.generate(prompts, generation)
        findings = find_incoherence(subject, prompts, [answer.text for answer in answers])
        return [
            Sample(
                prompt_id=item.id,
                cluster=item.category,
                prompt=item.prompt,
                series=METRIC,
                output=answer.text,
                score=None if finding.unknown else float(finding.incoherent is not None),
                truncated=answer.truncated,
                error=finding.unknown,
            )
            for item, answer, finding in zip(items, answers, findings, strict=True)
        ]

    def measure(self, settings: Coherence, pairs: Sequence[Pair], confidence: float) -> tuple[Measurement, ...]:
        return (paired_share(METRIC, pairs, confidence),)
