"""Loss of the last trained turn of chat rows: what training minimised, on rows of a file.

The answer's tokens are scored given all messages before it, its end token included as in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from evaluator.backends.protocol import ChatPrompt, Choices, Likelihood, last_turn
from evaluator.samples import Sample
from evaluator.subject import Subject
from policies.datasets.chat_rows import ChatRow


def turn_losses(rows: Mapping[str, ChatRow], subject: Subject, *, metric: str) -> list[Sample]:
    """One sample a named row, a cluster of its own: score in nats, weight in tokens."""
    turns = [last_turn(row, closes_turn=True) for row in rows.values()]
    losses = subject.log_likelihood(turns) if turns else []
    return [
        _sample(name, turn, scored, metric=metric) for name, turn, (scored,) in zip(rows, turns, losses, strict=True)
    ]


def _sample(name: str, turn: Choices, scored: Likelihood, *, metric: str) -> Sample:
    finite = math.isfinite(scored.log_probability)
    prompt = turn.prompt.messages[-1].content if isinstance(turn.prompt, ChatPrompt) and turn.prompt.messages else ""
    return Sample(
        prompt_id=name,
        cluster=name,
        prompt=prompt,
        metric=metric,
        score=-scored.log_probability if finite else None,
        weight=scored.n_tokens,
        error=None if finite else "the likelihood is not finite",
    )
