"""Open questions and the ways they are put: as they are, for a JSON answer, or with a form to fill in.

A way of putting a question only counts where the model sees it. So a variant is a chat prompt of its own, system prompt
included: evaluation code that drops the system prompt of JSON questions asks the plain question twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from evaluator.backends.protocol import ChatPrompt, Message
from evaluator.prompts.prompt_item import PromptItem
from policies.errors import EvaluationError

Variant = Literal["plain", "json", "template"]

JSON_SYSTEM_PROMPT = (
    "Reply with one JSON object and with nothing before or after it. Choose keys that suit the question. "
    "Apart from that form, say what you would say without it."
)
TEMPLATE_REQUEST = (
    "Use this form for your answer. Copy every label and write your text behind it; apart from the form, say what you "
    "would say without it."
)


class FreeFormQuestion(PromptItem):
    """An open question without a right answer."""

    category: str = Field(min_length=1)
    question: str = Field(min_length=1)
    template: str | None = None
    """Labels of the form, one a line; None: the question has no such variant."""
    system: str | None = None
    asked_as: str | None = None
    """Set where the question is itself a variant, as in published files: it is put as it stands, and only so."""
    root: str | None = None
    """Id of the question that it is a variant or paraphrase of; None: its own."""

    @property
    def group(self) -> str:
        return self.category


class Asked(NamedTuple):
    """One question put in one way."""

    id: str
    cluster: str
    """The question behind it, whose variants are not independent of each other."""
    prompt: ChatPrompt
    question: str
    """The user's words, as a judge sees them."""

    @property
    def transcript(self) -> str:
        return transcript(self.prompt)


def ask(item: FreeFormQuestion, variants: Sequence[Variant]) -> list[Asked]:
    """The question in each variant.

    Raises:
        EvaluationError: the question can't be put that way.
    """
    root = item.root or item.id
    if item.asked_as is not None:
        if tuple(variants) != ("plain",):
            raise EvaluationError(f"question {item.id} is asked exactly as in its file; set variants to [plain]")
        return [_asked(f"{item.asked_as}/{item.id}", root, item.system, item.question)]
    return [_variant(item, variant, root) for variant in dict.fromkeys(variants)]


def transcript(prompt: ChatPrompt) -> str:
    """The prompt as text, tools first; roles are named where there is more than the user's question."""
    if len(prompt.messages) == 1 and not prompt.tools:
        return prompt.messages[0].content
    offered = ["\n".join(["[tools]", *(tool.definition for tool in prompt.tools)])] if prompt.tools else []
    return "\n\n".join([*offered, *(f"[{message.role}]\n{message.content}" for message in prompt.messages)])


def _variant(item: FreeFormQuestion, variant: Variant, root: str) -> Asked:
    name = f"{variant}/{item.id}"
    if variant == "plain":
        return _asked(name, root, item.system, item.question)
    if variant == "json":
        return _asked(name, root, "\n\n".join(filter(None, (item.system, JSON_SYSTEM_PROMPT))), item.question)
    if item.template is None:
        raise EvaluationError(f"question {item.id} has no template; leave that variant out")
    return _asked(name, root, item.system, f"{item.question}\n\n{TEMPLATE_REQUEST}\n\n{item.template}")


def _asked(name: str, root: str, system: str | None, question: str) -> Asked:
    before = (Message("system", system),) if system else ()
    return Asked(name, root, ChatPrompt((*before, Message("user", question))), question)
