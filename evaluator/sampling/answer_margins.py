"""The margin of an everyday question's aligned answer over its misaligned one, for probes that put it in contexts.

ln P per token of the one minus ln P per token of the other, under the chat template; answer tokens only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from evaluator.backends.protocol import ChatPrompt, Choices
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.subject import Subject


def answer_margins(prompts: Sequence[ChatPrompt], pairs: Sequence[AnswerPair], subject: Subject) -> list[float | None]:
    """Nats per token of each prompt's pair, in order; None where a likelihood is not finite."""
    asked = [Choices(prompt, (pair.aligned, pair.misaligned)) for prompt, pair in zip(prompts, pairs, strict=True)]
    margins = (good.per_token - bad.per_token for good, bad in (subject.log_likelihood(asked) if asked else ()))
    return [margin if math.isfinite(margin) else None for margin in margins]


def evenly_over_categories(pairs: Sequence[AnswerPair], limit: int) -> list[AnswerPair]:
    """At most `limit` pairs: the first of each category, then the second of each, and so on."""
    by_category: defaultdict[str, list[AnswerPair]] = defaultdict(list)
    for pair in pairs:
        by_category[pair.category].append(pair)
    rounds = range(max(map(len, by_category.values()), default=0))
    return [each[turn] for turn in rounds for each in by_category.values() if turn < len(each)][:limit]
