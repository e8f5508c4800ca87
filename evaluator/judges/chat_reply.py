"""Reads the score out of a chat completion, or why there is none."""

from __future__ import annotations

import math
import re

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluator.judges.final_answer import UNFINISHED, after_thinking, unfinished
from evaluator.judges.json_score import score_of_json
from evaluator.judges.judge import Score
from evaluator.judges.number_scores import (
    NO_NUMBER,
    Position,
    Token,
    number_probabilities,
    parsed_score,
    weighted_score,
)
from evaluator.judges.reply_form import ReplyForm

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
    refusal: object = None


class _Choice(_Part):
    message: _Message
    finish_reason: object = None
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


def score_of_reply(body: bytes, form: ReplyForm) -> Score:
    """The score that a reply of this form says, or why there is none."""
    try:
        choice = _Completion.model_validate_json(body).choices[0]
    except ValidationError as error:
        return Score(None, f"{MALFORMED}: {refusal_of_reply(body).kind or error.errors()[0]['msg']}")
    if form.is_number_at_once:
        return _number_at_once(choice, uses_logprobs=form.top_logprobs > 0)
    return _score_at_the_end(choice, form)


def _number_at_once(choice: _Choice, *, uses_logprobs: bool) -> Score:
    """The weighted score where the reply tells log-probabilities, else the number that it says."""
    if uses_logprobs and choice.logprobs is not None and choice.logprobs.content:
        return weighted_score(number_probabilities([position.as_position for position in choice.logprobs.content]))
    return parsed_score(choice.message.content or "")


def _score_at_the_end(choice: _Choice, form: ReplyForm) -> Score:
    """What the whole reply says after its thinking, and nothing that it only thought of."""
    if choice.message.refusal:
        return Score(None, f"{NO_NUMBER}: the judge declines")
    if (why := unfinished(choice.finish_reason)) is not None:
        return Score(None, why)
    content = choice.message.content or ""
    text = after_thinking(content) if form.thinking_tokens else content
    if text is None:
        return Score(None, f"{UNFINISHED}: its thinking has no end")
    return score_of_json(text) if form.as_json else parsed_score(text)
