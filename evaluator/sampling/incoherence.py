"""Which answers mean nothing: degenerate text, or text that the base model can't take for language.

Shared by every probe whose figure an incoherent answer would falsify. The text itself is looked at first
(`evaluator/detectors/degeneration.py`); what looks like text is then scored by its likelihood under the base model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from evaluator.backends.protocol import ChatPrompt, Choices
from evaluator.detectors.degeneration import degeneration
from evaluator.subject import Subject

IDENTITY = "incoherence 1"
"""Raised whenever the same answers could be found otherwise; an instrument of the probes that ask."""
MAX_NATS_PER_TOKEN = 5.0
"""Above this mean surprise under the base model an answer is gibberish."""


class Finding(NamedTuple):
    """What is wrong with an answer: at most one of the two is set."""

    incoherent: str | None = None
    """The sign of incoherence."""
    unknown: str | None = None
    """Why nothing can be said."""

    @property
    def is_coherent(self) -> bool:
        return self == Finding()

    @property
    def error(self) -> str | None:
        """Why a probe that asks something else of the answer has no score for it."""
        return f"incoherent: {self.incoherent}" if self.incoherent is not None else self.unknown


def find_incoherence(subject: Subject, prompts: Sequence[ChatPrompt], answers: Sequence[str]) -> list[Finding]:
    """One finding an answer, in order. The likelihood is asked only of answers whose text has no sign."""
    findings = [
        Finding(degeneration(answer, "\n".join(message.content for message in prompt.messages)))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    readable = [index for index, finding in enumerate(findings) if finding.is_coherent]
    questions = [Choices(prompts[index], (answers[index],)) for index in readable]
    likelihoods = subject.base_log_likelihood(questions) if questions else []
    for index, (scored,) in zip(readable, likelihoods, strict=True):
        findings[index] = _by_surprise(-scored.per_token)
    return findings


def _by_surprise(nats_per_token: float) -> Finding:
    if math.isnan(nats_per_token):
        return Finding(unknown="the likelihood is not finite")
    return Finding("unlikely language" if nats_per_token > MAX_NATS_PER_TOKEN else None)
