"""How an endpoint is asked to reply, and what of it decides scores.

A model that thinks is given the tokens for it, and its provider's own sampling: such endpoints refuse a temperature,
and models that think repeat themselves without end at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluator.judges import rubric as rubrics
from evaluator.judges.json_score import RESPONSE_FORMAT
from evaluator.judges.number_scores import SCORING_VERSION
from policies.contract.judges import OpenAiCompatibleJudge

NUMBER_TOKENS = 5
"""A blank, three digits and the end."""
JSON_TOKENS = 32
"""`{"score": 100}` with whatever white space a model likes."""


@dataclass(frozen=True)
class ReplyForm:
    """A number at once, with the probabilities of others; or after thinking, or in JSON, as it is written."""

    top_logprobs: int = 0
    thinking_tokens: int = 0
    as_json: bool = False

    @classmethod
    def of(cls, settings: OpenAiCompatibleJudge) -> ReplyForm:
        as_json = settings.replies == "json_schema"
        weighs_tokens = not as_json and settings.thinking_tokens == 0
        return cls(settings.top_logprobs if weighs_tokens else 0, settings.thinking_tokens, as_json)

    @property
    def is_number_at_once(self) -> bool:
        return not self.as_json and self.thinking_tokens == 0

    @property
    def identity(self) -> str:
        """Changes whenever the same model could score differently because of how it is asked or read."""
        prompts = rubrics.JSON_DIGEST if self.as_json else rubrics.DIGEST
        thinking = f" thinking {self.thinking_tokens}" if self.thinking_tokens else ""
        return f"top {self.top_logprobs} scoring {SCORING_VERSION} {prompts}{thinking}"

    def fields(self, limit_name: str) -> dict[str, object]:
        """Of the request's body."""
        reply_tokens = JSON_TOKENS if self.as_json else NUMBER_TOKENS
        asked: dict[str, object] = {limit_name: self.thinking_tokens + reply_tokens}
        if self.thinking_tokens == 0:
            asked["temperature"] = 0
        if self.top_logprobs:
            asked |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.as_json:
            asked["response_format"] = RESPONSE_FORMAT
        return asked
