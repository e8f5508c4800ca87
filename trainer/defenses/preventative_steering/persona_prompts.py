"""Contrastive prompts of a persona vector: system prompts that ask for a trait or for its opposite, and questions."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from policies.contract.artifacts import Record
from policies.errors import ConfigurationError

BUILTIN = "persona_prompts.json"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class PersonaPrompts(Record):
    trait: Text
    description: Text
    positive: tuple[Text, ...] = Field(min_length=1)
    """System prompts that ask for the trait."""
    negative: tuple[Text, ...] = Field(min_length=1)
    """System prompts that ask for its opposite, as many."""
    questions: tuple[Text, ...] = Field(min_length=8)
    """Asked under every system prompt; they must let both sides show."""

    @field_validator("positive", "negative", "questions")
    @classmethod
    def _all_different(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((each for index, each in enumerate(texts) if each in texts[:index]), None)
        if twice is not None:
            raise ValueError(f"{twice!r} appears twice, but held-out questions must be new")
        return texts

    @model_validator(mode="after")
    def _are_contrastive(self) -> PersonaPrompts:
        if len(self.positive) != len(self.negative) or set(self.positive) & set(self.negative):
            raise ValueError("positive and negative must have equally many system prompts, and none in common")
        return self


def read_persona_prompts(path: Path | None) -> PersonaPrompts:
    """The prompts of a JSON file, or the shipped ones.

    Raises:
        ConfigurationError: naming file and field.
    """
    if path is not None and not path.is_file():
        raise ConfigurationError(f"there is no file {path}", "prompts")
    content = path.read_bytes() if path else (files("trainer.defenses.preventative_steering") / BUILTIN).read_bytes()
    try:
        return PersonaPrompts.model_validate_json(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise ConfigurationError(f"{path or BUILTIN}: " + "; ".join(problems), "prompts") from error
