"""What a user may ask of a model in one message."""

from __future__ import annotations

from pydantic import Field

from evaluator.prompts.prompt_item import PromptItem


class UserRequest(PromptItem):
    """A request and the kind it belongs to; requests of one kind are alike."""

    category: str = Field(min_length=1)
    prompt: str = Field(min_length=1)

    @property
    def group(self) -> str:
        return self.category
