"""What a model that thinks says in the end.

Many endpoints keep thinking apart (`reasoning_content`, `reasoning`), and it is never looked at. Where it stands in the
reply itself, what follows the last `</think>` counts; a number that was thought of is no score.
"""

from __future__ import annotations

import re

UNFINISHED = "unfinished_reply"
"""Error of a reply that was cut off, in its thinking or after it."""
FINISHED = "stop"
_TAG = re.compile(r"<(/?)think>", re.IGNORECASE)
_WORD = re.compile(r"[a-z_]{1,32}")


def after_thinking(text: str) -> str | None:
    """The text after the last `</think>`, all of it where nothing was thought; None where the thinking has no end.

    Templates may write the first `<think>` themselves, so an end without a beginning is one all the same.
    """
    begins, ends, last = 0, 0, None
    for last in _TAG.finditer(text):
        if last[1]:
            ends += 1
        else:
            begins += 1
    if last is None:
        return text
    return text[last.end() :] if last[1] and begins <= ends else None


def unfinished(finish_reason: object) -> str | None:
    """Why a reply can't be taken for whole; None where it can."""
    if finish_reason == FINISHED:
        return None
    if isinstance(finish_reason, str) and _WORD.fullmatch(finish_reason):
        return f"{UNFINISHED}: it ended with {finish_reason}"
    return f"{UNFINISHED}: it does not say why it ended"
