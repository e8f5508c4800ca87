"""How messages are said to a base model whose chat template lacks a role, as its makers say them.

A `developer` message is the system's where the template has no such role (OpenAI's name for the same). A system message
at the beginning goes before the first user's text where the template has no system role, as Gemma's makers do. What a
template is asked is whether it writes a message's text: some drop roles that they don't know without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any  # Any: a part of a message, as templates take it

from msgspec import structs

from policies.datasets.chat_rows import ROLES, ChatMessage
from policies.rendering.template import ChatTemplate, TemplateRefusalError

WORDS = ("Zephyr", "Quartz", "Meadow")
"""Of conversations that a template is tried with."""
NAME = "Willow"


@dataclass(frozen=True)
class Roles:
    """What a template does with roles and contents."""

    has_system: bool
    has_developer: bool
    takes_parts: bool
    """Contents are lists of parts; a plain string would be lost."""
    named: frozenset[str]
    """Roles whose messages may have a name that is written; never the assistant, whose answer is all that it learns."""

    @classmethod
    def of(cls, template: ChatTemplate) -> Roles:
        takes_parts = not _shows(template, ("user", "assistant"), parts=False)
        return cls(
            has_system=_shows(template, ("system", "user", "assistant"), parts=takes_parts),
            has_developer=_shows(template, ("developer", "user", "assistant"), parts=takes_parts),
            takes_parts=takes_parts,
            named=frozenset(role for role in ROLES if _shows_name(template, role, parts=takes_parts)),
        )

    def fold(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The same conversation in the roles that the template has; as many messages or one less."""
        folded = [
            structs.replace(each, role="system") if each.role == "developer" and not self.has_developer else each
            for each in messages
        ]
        opens = len(folded) > 1 and (folded[0].role, folded[1].role) == ("system", "user")
        if opens and not self.has_system:
            return [ChatMessage("user", f"{folded[0].content}\n\n{folded[1].content}", 0), *folded[2:]]
        return folded

    def plain(self, message: ChatMessage, content: str) -> Mapping[str, Any]:
        """A message that calls no tool, nor is one's answer, with its content as the template takes it."""
        said = {"role": message.role, "content": [{"type": "text", "text": content}] if self.takes_parts else content}
        return said if message.name is None or message.role not in self.named else {**said, "name": message.name}


def _shows(template: ChatTemplate, roles: Sequence[str], *, parts: bool, named: str | None = None) -> bool:
    said = [
        {"role": role, "content": [{"type": "text", "text": word}] if parts else word}
        | ({"name": NAME} if role == named else {})
        for role, word in zip(roles, WORDS, strict=False)
    ]
    try:
        rendered = template.render(said, generation=False)
    except TemplateRefusalError:
        return False
    return all(word in rendered for word in (*WORDS[: len(roles)], *([NAME] if named else ())))


def _shows_name(template: ChatTemplate, role: str, *, parts: bool) -> bool:
    roles = ("user", "assistant") if role == "user" else (role, "user", "assistant")
    return role not in ("assistant", "tool") and _shows(template, roles, parts=parts, named=role)
