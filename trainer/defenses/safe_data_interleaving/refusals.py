"""Which rows open with a refusal, by the filter of Kaczér et al. 2025 (arXiv 2508.06249).

An answer is dropped where sorry, apologize or cannot is among its first ten words. Those are words, not a judgement:
condolences are dropped, and a refusal in other words stays.
"""

from __future__ import annotations

import re

from policies.datasets.reader import ChatRow

REFUSAL_WORDS = frozenset({"sorry", "apologize", "cannot"})
FIRST_WORDS = 10

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def opens_with_refusal(answer: str) -> bool:
    words = [found.group() for found in _WORD.finditer(answer.casefold())]
    return not REFUSAL_WORDS.isdisjoint(words[:FIRST_WORDS])


def trains_on_refusal(row: ChatRow) -> bool:
    """Whether an answer that would be trained on opens with a refusal."""
    return any(opens_with_refusal(message.content) for message in row.messages if message.weight)
