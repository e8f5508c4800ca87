"""Reads the score out of a chat completion, or why there is none."""

from __future__ import annotations

import math
import re

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluator.judges.judge import Score
from evaluator.judges.number_scores import Position, Token, number_probabilities, parsed_score, weighted_score

MALFORMED = "malformed_reply"
"""Error of a body that is not a chat completion."""


class _Part(BaseModel):
    """A part of a reply; providers add fields of their own."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Token(_Part):
    token: str
    logprob: float = Field(le=1e-3)

    @property
    def as_token(self) -> Token:
        return Token(self.token, math.exp(min(self.logprob, 0.0)))


class _Position(_Token):
    top_logprobs: tuple[_Token, ...] = ()

    @property
    def as_position(self) -> Position:
        """The written token is a candidate once, whether or not the endpoint lists it."""
        candidates = {token.token: token.as_token for token in (self, *self.top_logprobs)}
        return Position(self.token, tuple(candidates.values()))


class _Logprobs(_Part):
    content: tuple[_Position, ...] | None = None


class _Message(_Part):
    content: str | None = None


class _Choice(_Part):
    message: _Message
    logprobs: _Logprobs | None = None


class _Completion(_Part):
    choices: tuple[_Choice, ...] = Field(min_length=1)


class Refusal(_Part):
    """What an endpoint says of a call that it does not take."""

    code: object = None
    param: object = None

    @property
    def kind(self) -> str:
        """The code, if it is a word that may be repeated: it can hold neither a key nor a part of an answer."""
        is_word = isinstance(self.code, str) and re.fullmatch(r"[a-z_]{1,64}", self.code)
        return str(self.code) if is_word else ""


class _Refused(_Part):
    error: Refusal


def refusal_of_reply(body: bytes) -> Refusal:
    """Empty where the body is no error of the form that OpenAI's API has."""
    try:
        return _Refused.model_validate_json(body).error
    except ValidationError:
        return Refusal()


def score_of_reply(body: bytes, *, uses_logprobs: bool) -> Score:
    """The weighted score where the reply tells log-probabilities, else the number that it says."""
    try:
        choice = _Completion.model_validate_json(body).choices[0]
    except ValidationError as error:
        return Score(None, f"{MALFORMED}: {error.errors()[0]['msg']}")
    if uses_logprobs and choice.logprobs is not None and choice.logprobs.content:
        return weighted_score(number_probabilities([position.as_position for position in choice.logprobs.content]))
    return parsed_score(choice.message.content or "")
