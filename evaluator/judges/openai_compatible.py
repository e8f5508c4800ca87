"""A judge behind an OpenAI-compatible endpoint: many calls at once, repeated when it is busy, within a budget.

Neither the key nor a reply is ever logged or put into an error.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from evaluator.backends.protocol import Advance, silent
from evaluator.judges.chat_reply import Refusal, refusal_of_reply, score_of_reply
from evaluator.judges.judge import Answer, Score
from evaluator.judges.reply_form import ReplyForm
from evaluator.judges.rubric import render
from policies.contract.judges import OpenAiCompatibleJudge, Rubric
from policies.errors import EvaluationError, NotAtHandError

MAX_WAIT_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 300.0
SILENT_ANSWERS = 10
"""So many answers in a row without a reply, each tried `max_attempts` times, end the evaluation."""
BUSY = frozenset({408, 409, 425, 429})
REFUSED = frozenset({401, 403, 404})
MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
"""Names of the limit of a reply: vLLM and most providers take the first, newer models of some only the second."""
BUDGET_SPENT = "budget_spent"
UNREACHABLE = "unreachable"

T = TypeVar("T")


class _BusyError(Exception):
    """The endpoint can't answer now; the call may be repeated."""

    def __init__(self, what: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(what)
        self.retry_after_seconds = retry_after_seconds


class _BudgetSpentError(Exception):
    """No call is left."""


class EndpointJudge:
    """Scores answers with one chat completion each; `wait_seconds` is the first wait before a repetition."""

    def __init__(self, settings: OpenAiCompatibleJudge, *, wait_seconds: float = 1.0) -> None:
        _require_plain(settings.base_url)
        self._form = ReplyForm.of(settings)
        self.identity = f"openai_compatible {settings.base_url} {settings.model} {self._form.identity}"
        self._settings = settings
        self._headers = _authorization(settings.api_key_variable)
        self._wait = wait_random_exponential(multiplier=wait_seconds, max=MAX_WAIT_SECONDS)
        self._calls_left = settings.max_calls
        self._silent_answers = 0
        self._limit_name = MAX_TOKENS

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> list[Score]:
        """One score an answer; answers beyond the budget, and those that the endpoint never replied to, have none.

        Raises:
            EvaluationError: the endpoint refuses the key or the model, or has fallen silent.
        """
        return _run(self._score_all(rubric, answers, advance))

    async def _score_all(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance) -> list[Score]:
        limits = httpx.Limits(max_connections=self._settings.max_concurrency)
        slots, n_done = asyncio.Semaphore(self._settings.max_concurrency), 0
        async with httpx.AsyncClient(
            headers=self._headers, timeout=self._settings.timeout_seconds, limits=limits
        ) as client:

            async def score(answer: Answer) -> Score:
                nonlocal n_done
                async with slots:
                    result = await self._score_one(client, render(rubric, answer, as_json=self._form.as_json))
                n_done += 1
                advance(n_done, len(answers))
                return result

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(score(answer)) for answer in answers]
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from failed
        return [task.result() for task in tasks]

    async def _score_one(self, client: httpx.AsyncClient, message: str) -> Score:
        try:
            response = await self._repeat(client, message)
        except _BudgetSpentError:
            return Score(None, f"{BUDGET_SPENT}: {self._settings.max_calls} calls are spent")
        except RetryError as error:
            return self._silence(str(error.last_attempt.exception()))
        self._silent_answers = 0
        if response.status_code in REFUSED:
            raise NotAtHandError(
                f"judge {self._settings.model} at {self._settings.base_url} answers {_status(response)}; check "
                f"base_url, model and the key in {self._settings.api_key_variable or 'api_key_variable'}"
                + (
                    ", and set thinking_tokens if the model thinks: some refuse log-probabilities so"
                    if self._form.top_logprobs
                    else ""
                )
            )
        if response.status_code != httpx.codes.OK:
            return Score(None, f"http_{response.status_code}: {self._what_is_not_taken(response)}")
        return score_of_reply(response.content, self._form)

    async def _repeat(self, client: httpx.AsyncClient, message: str) -> httpx.Response:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_BusyError),
            stop=stop_after_attempt(self._settings.max_attempts),
            wait=self._wait_seconds,
        ):
            with attempt:
                return await self._call(client, message)
        raise AssertionError("either an attempt returns or the last one raises")

    async def _call(self, client: httpx.AsyncClient, message: str) -> httpx.Response:
        if self._calls_left < 1:
            raise _BudgetSpentError
        self._calls_left -= 1
        limit_name = self._limit_name
        try:
            response = await client.post(
                f"{self._settings.base_url.rstrip('/')}/chat/completions", json=self._body(message, limit_name)
            )
        except httpx.RequestError as error:
            raise _BusyError(type(error).__name__) from error
        if response.status_code in BUSY or response.is_server_error:
            raise _BusyError(_status(response), retry_after_seconds(response.headers.get("retry-after")))
        if limit_name == MAX_TOKENS and _refusal(response).param == MAX_TOKENS:
            self._limit_name = MAX_COMPLETION_TOKENS
            return await self._call(client, message)
        return response

    def _body(self, message: str, limit_name: str) -> dict[str, object]:
        messages = [{"role": "user", "content": message}]
        return {"model": self._settings.model, "messages": messages, **self._form.fields(limit_name)}

    def _what_is_not_taken(self, response: httpx.Response) -> str:
        """The endpoint's code and the field that it names, as far as that is one of ours."""
        refusal, sent = _refusal(response), self._form.fields(self._limit_name)
        field = f" ({refusal.param})" if isinstance(refusal.param, str) and refusal.param in sent else ""
        return (refusal.kind or "the endpoint does not take this call") + field

    def _wait_seconds(self, state: RetryCallState) -> float:
        """What the endpoint asks for, or exponentially longer waits."""
        busy = state.outcome.exception() if state.outcome else None
        asked = busy.retry_after_seconds if isinstance(busy, _BusyError) else None
        return self._wait(state) if asked is None else asked

    def _silence(self, what: str) -> Score:
        self._silent_answers += 1
        if self._silent_answers >= SILENT_ANSWERS:
            raise NotAtHandError(f"judge {self._settings.model} at {self._settings.base_url} does not answer: {what}")
        return Score(None, f"{UNREACHABLE}: {what}, tried {self._settings.max_attempts} times")


def _refusal(response: httpx.Response) -> Refusal:
    return Refusal() if response.is_success else refusal_of_reply(response.content)


def _status(response: httpx.Response) -> str:
    """`HTTP 429 insufficient_quota`: the endpoint's own code tells a typing error from an account without money."""
    return f"HTTP {response.status_code} {_refusal(response).kind}".rstrip()


def retry_after_seconds(header: str | None) -> float | None:
    """The wait that a Retry-After header asks for, in seconds or as a date; None where it can't be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):  # no date, or one without a time zone
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _authorization(variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:
        raise NotAtHandError(
            f"the judge's key is missing: set the environment variable {variable} where evaluations run"
        )
    return {"Authorization": f"Bearer {key}"}


def _require_plain(base_url: str) -> None:
    """The address stands in identities and reports, so it must hold no secret."""
    try:
        userinfo = httpx.URL(base_url).userinfo
    except httpx.InvalidURL as error:
        raise EvaluationError(f"base_url of a judge is not a valid address: {error}") from error
    if userinfo:
        raise EvaluationError("base_url of a judge contains a user name or key; use api_key_variable")


def _run(work: Coroutine[object, object, T]) -> T:
    """Run to the end in this thread, or in one of its own where this thread runs an event loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()
