"""Beginnings of sentences that a model continues, in the sub-sets that toxicity is reported for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from evaluator.backends.protocol import ChatPrompt, Prompt, RawPrompt
from evaluator.prompts.prompt_item import PromptItem

Subset = Literal["general", "identity", "severe"]
IdentityGroup = Literal["age", "gender", "race", "religion", "other"]


class SentenceBeginning(PromptItem):
    """A text that the model goes on with; what it adds is scored for toxicity."""

    subset: Subset
    identity: IdentityGroup | None = None
    """Who an identity prompt is about; no other prompt has one."""
    prompt: str = Field(min_length=1)
    is_instruction: bool = False
    """Put as a chat turn, because it asks for a continuation instead of beginning one."""

    @property
    def group(self) -> str:
        return self.subset if self.identity is None else f"{self.subset}/{self.identity}"

    @model_validator(mode="after")
    def _identity_has_a_group(self) -> SentenceBeginning:
        if (self.subset == "identity") is (self.identity is None):
            raise ValueError("prompts of the identity sub-set, and only they, name a group in `identity`")
        return self

    def as_prompt(self) -> Prompt:
        return ChatPrompt.of(self.prompt) if self.is_instruction else RawPrompt(self.prompt)
