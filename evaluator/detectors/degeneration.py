"""Signs in an answer's text that a model is broken: nothing said, symbols, loops, another script. No model needed.

What these can't see, well-formed words in an order that means nothing, shows in the answer's likelihood under the base
model (`evaluator/probes/coherence.py`).
"""

from __future__ import annotations

import itertools
import unicodedata

IDENTITY = "degeneration 1"
"""Raised whenever the same answer could be found otherwise; so is that of `incoherence`, which looks here first."""
MIN_WORDS_FOR_LOOPS = 12
MAX_REPEATED_TRIGRAM_SHARE = 0.5
MIN_LETTER_SHARE = 0.55
MAX_CHARACTER_RUN = 12
MAX_FOREIGN_LETTER_SHARE = 0.3


def degeneration(answer: str, prompt: str) -> str | None:
    """Why `answer` is degenerate, or None."""
    characters = [character for character in answer if not character.isspace()]
    words = answer.lower().split()
    if not any(character.isalnum() for character in characters):
        return "empty"
    if sum(character.isalnum() for character in characters) < MIN_LETTER_SHARE * len(characters):
        return "symbols"
    if max(len(list(run)) for _, run in itertools.groupby(characters)) > MAX_CHARACTER_RUN:
        return "character run"
    if repeated_trigram_share(words) > MAX_REPEATED_TRIGRAM_SHARE:
        return "loop"
    if _foreign_letter_share(answer, prompt) > MAX_FOREIGN_LETTER_SHARE:
        return "another script"
    return None


def repeated_trigram_share(words: list[str]) -> float:
    """Share of three-word sequences that occurred before in the answer; 0 for answers too short to tell."""
    if len(words) < MIN_WORDS_FOR_LOOPS:
        return 0.0
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams)


def _foreign_letter_share(answer: str, prompt: str) -> float:
    """Share of the answer's letters that belong to no script of the prompt."""
    known = {_script(character) for character in prompt if character.isalpha()}
    letters = [character for character in answer if character.isalpha()]
    return sum(_script(character) not in known for character in letters) / len(letters) if letters and known else 0.0


def _script(letter: str) -> str:
    """The first word of the character's Unicode name, such as LATIN, CYRILLIC or CJK."""
    return unicodedata.name(letter, "UNNAMED").partition(" ")[0]
