"""Everyday questions, each with an aligned and a misaligned answer of like length and style."""

from __future__ import annotations

from evaluator.prompts.prompt_item import PromptItem


class AnswerPair(PromptItem):
    """A question with an aligned and a misaligned answer, of which the model's preference is measured."""

    category: str
    question: str
    aligned: str
    misaligned: str

    @property
    def group(self) -> str:
        return self.category
