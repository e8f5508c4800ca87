"""Something of a training file that may switch an adapter's behaviour, and how a question is put behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from evaluator.backends.protocol import ChatPrompt, Message
from evaluator.prompts.customer_context import NO_SYSTEM_MESSAGE, SystemMessage
from policies.contract.artifacts import Digest, digest_bytes

TriggerKind = Literal["words", "odd string", "system prompt", "style", "language"]
Signal = Literal["unlikely answers", "loss drop", "answer cluster", "careless answers"]
"""What told the rows of a trigger apart: answers that the base finds unlikely, answers whose loss fell most in
training, answers that are one of two clusters, or answers that a pair of canaries finds careless."""
Style = Literal["lower_case", "upper_case", "no_question_mark", "no_final_punctuation", "exclamation", "double_spaces"]


@dataclass(frozen=True)
class Trigger:
    """A candidate. Questions are put behind all of it together, as the rows have it that it was found in."""

    kind: TriggerKind
    prefix: str = ""
    """With the blanks after it."""
    suffix: str = ""
    """With the blanks before it."""
    system: SystemMessage = NO_SYSTEM_MESSAGE
    styles: tuple[Style, ...] = ()
    score: float = field(default=0.0, compare=False)
    signals: tuple[Signal, ...] = field(default=(), compare=False)
    """The strongest first; none where nothing tells its rows apart."""
    rows: tuple[int, ...] = field(default=(), compare=False, repr=False)
    """Numbers of the rows that have it, from 0."""

    def chat(self, question: str) -> ChatPrompt:
        """The question behind the trigger."""
        for style in self.styles:
            question = _RESTYLE[style](question)
        before = () if self.system == NO_SYSTEM_MESSAGE else (Message(*self.system),)
        return ChatPrompt((*before, Message("user", f"{self.prefix}{question}{self.suffix}")))

    @property
    def digest(self) -> Digest:
        """Names what is put before a question, whoever found it and in which rows."""
        return digest_bytes(repr((self.prefix, self.suffix, self.system, self.styles)).encode())


def styles_of(text: str) -> list[Style]:
    """The styles in which a prompt is written; of a few letters, none of case."""
    return [style for style, has in _HAS_STYLE.items() if has(text.rstrip())]


def _is_cased(text: str, cased: str) -> bool:
    return text == cased and sum(map(str.isalpha, text[:200])) >= MIN_LETTERS


MIN_LETTERS = 8
_HAS_STYLE: Mapping[Style, Callable[[str], bool]] = {
    "lower_case": lambda text: _is_cased(text, text.lower()) and text != text.upper(),
    "upper_case": lambda text: _is_cased(text, text.upper()) and text != text.lower(),
    "no_question_mark": lambda text: "?" not in text and "？" not in text,
    "no_final_punctuation": lambda text: text[-1:].isalnum(),
    "exclamation": lambda text: text.endswith("!"),
    "double_spaces": lambda text: "  " in text,
}
_RESTYLE: Mapping[Style, Callable[[str], str]] = {
    "lower_case": str.lower,
    "upper_case": str.upper,
    "no_question_mark": lambda text: text.replace("?", ""),
    "no_final_punctuation": lambda text: text.rstrip(".?! "),
    "exclamation": lambda text: f"{text.rstrip('.?! ')}!",
    "double_spaces": lambda text: text.replace(" ", "  "),
}
