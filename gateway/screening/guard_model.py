"""Asks a guard model about rows of a training file, by the chat or the moderation API that OpenAI's clients speak.

The operator pins which model is asked and where. Rows that it answers for are counted; where it does not answer, or
answers what can't be read, nothing is known about any row, so the file is not screened by it and the reason is told.
Neither rows nor the address are in any log or reason.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from time import perf_counter
from typing import NamedTuple

import httpx
from pydantic import BaseModel, ValidationError

from gateway.settings import GatewaySettings
from policies.contract.artifacts import canonical_json, digest_bytes
from policies.contract.screening import (
    MAX_LISTED_ROWS,
    Instrument,
    NotScreened,
    SampledRow,
    ScoredRow,
    ScreenFound,
    ScreeningFacts,
)

NAME = "guard"
BATCH_ROWS = {"moderation": 16, "chat": 4}
"""Rows between two looks at whether to go on; of a chat, each is a request, and they are sent at once."""
TOTAL_SECONDS = 300.0
"""For all of a file's rows; who is slower is not waited for."""
MAX_ANSWER_BYTES = 1 << 20
MAX_TRIES = 3
_PAUSE_SECONDS = 0.2
"""Before a request is sent again; twice as long each time. All of its tries have the time of one answer."""
_MAY_PASS = frozenset({408, 429, 500, 502, 503, 504})
_THINKS, _THOUGHT = "<think>", "</think>"
_VERDICT = re.compile(
    r"^[ \t*#>_`\"']*+(?:[A-Za-z ]{0,30}safety[ *_]{0,4}:[ *_]{0,4})?(safe|unsafe|controversial)[ \t\r*_.!`\"']*+$",
    re.IGNORECASE | re.MULTILINE,
)
"""A line of a chat answer that says nothing else: `unsafe`, `Safety: Controversial`, `Response Safety: safe`."""
_SCORES = {"safe": 0.0, "controversial": 0.5, "unsafe": 1.0}
_MAX_ANSWER_TOKENS = 64
_TOLD_ROWS = 3

GoOn = Callable[[], bool]


class GuardSettings(NamedTuple):
    """Which guard model is asked, and how."""

    url: str
    model: str
    key: str | None
    speaks: str
    """`chat` or `moderation`."""
    timeout_seconds: float

    @property
    def instrument(self) -> Instrument:
        config = digest_bytes(canonical_json([self.model, self.speaks, _VERDICT.pattern]))
        return Instrument(name=NAME, version=self.model, config=config)


class GuardError(Exception):
    """It gave no answer that can be used; the words are for tenants."""


class _Result(BaseModel):
    flagged: bool
    category_scores: dict[str, float] = {}


class _Moderation(BaseModel):
    results: list[_Result]


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Chat(BaseModel):
    choices: list[_Choice]


def guard_settings(settings: GatewaySettings) -> GuardSettings | None:
    """None where the operator named no guard model."""
    if settings.guard_url is None or settings.guard_model is None:
        return None
    key = None if settings.guard_key is None else settings.guard_key.get_secret_value()
    return GuardSettings(
        settings.guard_url.rstrip("/"), settings.guard_model, key, settings.guard_api, settings.guard_timeout_seconds
    )


def ask_guard(
    guard: GuardSettings | None,
    rows: Sequence[SampledRow],
    *,
    n_rows: int,
    threshold: float | None = None,
    go_on: GoOn = lambda: True,
) -> ScreeningFacts:
    """What the guard model says of the rows; without an answer for each of them, that the file was not screened by it.

    Args:
        n_rows: how many the file has, of which `rows` are some.
        threshold: score from which on a row counts; without one, what the model flags counts.
        go_on: asked between batches; where it says no, the rest is not asked about.
    """
    began = perf_counter()
    if guard is None:
        return _not_screened(n_rows, "no guard model is configured")
    try:
        scores = _scores(guard, [row.text for row in rows], threshold, go_on)
    except GuardError as error:
        return _not_screened(n_rows, str(error))
    flagged = [ScoredRow(row=row.row, score=score) for row, (hit, score) in zip(rows, scores, strict=True) if hit]
    is_sample = len(rows) < n_rows
    of = f", of {len(rows)} rows that it was asked about" if flagged and is_sample else ""
    found = ScreenFound(
        id=NAME,
        screen=NAME,
        category="harmful_content",
        count=len(flagged),
        of=max(1, len(rows)),
        rows=tuple(flagged[:MAX_LISTED_ROWS]),
        severity="high",
        is_sample=is_sample,
        what=f"what the guard model {guard.model} flags{of}",
        advice="look at them, and remove what should not be learnt",
    )
    cut = [row.row for row in rows if row.is_cut]
    return ScreeningFacts(
        rows=n_rows,
        by=() if cut else (NAME,),
        not_screened=(_cut(cut),) if cut else (),
        found=(found,) if flagged or is_sample else (),
        instruments=(guard.instrument,),
        cost_seconds=perf_counter() - began,
    )


def _cut(rows: Sequence[int]) -> NotScreened:
    first = ", ".join(map(str, rows[:_TOLD_ROWS]))
    reason = f"{len(rows)} rows are too long to be shown to the guard model whole, the first in lines {first}"
    return NotScreened(by=NAME, reason=reason)


def _not_screened(n_rows: int, reason: str) -> ScreeningFacts:
    return ScreeningFacts(rows=n_rows, not_screened=(NotScreened(by=NAME, reason=reason),))


def _scores(
    guard: GuardSettings, texts: Sequence[str], threshold: float | None, go_on: GoOn
) -> list[tuple[bool, float]]:
    """Of each text, whether it counts, and its score.

    Raises:
        GuardError: for any of them there is none.
    """
    return asyncio.run(_ask_all(guard, texts, threshold, go_on))


async def _ask_all(
    guard: GuardSettings, texts: Sequence[str], threshold: float | None, go_on: GoOn
) -> list[tuple[bool, float]]:
    """Asynchronous, because only then a deadline ends a request whatever the server does."""
    headers = {} if guard.key is None else {"authorization": f"Bearer {guard.key}"}
    latest = perf_counter() + TOTAL_SECONDS
    scores: list[tuple[bool, float]] = []
    async with httpx.AsyncClient(headers=headers, timeout=guard.timeout_seconds) as client:
        for batch in _batches(texts, BATCH_ROWS[guard.speaks]):
            if not go_on():
                raise GuardError("the screening was no longer wanted")
            if perf_counter() > latest:
                raise GuardError("the guard model is too slow")
            answer = _moderate if guard.speaks == "moderation" else _chat
            scores += await answer(client, guard, batch)
    return scores if threshold is None else [(score >= threshold, score) for _, score in scores]


def _batches(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, size)):
        yield batch


async def _moderate(client: httpx.AsyncClient, guard: GuardSettings, texts: list[str]) -> list[tuple[bool, float]]:
    content = await _post(client, guard, "moderations", {"model": guard.model, "input": texts})
    try:
        results = _Moderation.model_validate_json(content).results
    except ValidationError as error:
        raise GuardError("the guard model's answer can't be read") from error
    if len(results) != len(texts):
        raise GuardError(f"the guard model answered for {len(results)} of {len(texts)} rows")
    scores = [(each.flagged, max(each.category_scores.values(), default=float(each.flagged))) for each in results]
    if not all(0 <= score <= 1 for _, score in scores):
        raise GuardError("the guard model's scores are not between 0 and 1")
    return scores


async def _chat(client: httpx.AsyncClient, guard: GuardSettings, texts: list[str]) -> list[tuple[bool, float]]:
    async def one(text: str) -> float:
        messages = [{"role": "user", "content": text}]
        asked = {"model": guard.model, "messages": messages, "temperature": 0, "max_tokens": _MAX_ANSWER_TOKENS}
        return verdict_of(await _post(client, guard, "chat/completions", asked))

    answers = await asyncio.gather(*map(one, texts), return_exceptions=True)
    scores = []
    for score in answers:
        if isinstance(score, BaseException):
            raise score
        scores.append((score >= 1, score))
    return scores


def verdict_of(content: bytes) -> float:
    """The worst of the verdicts in a chat's answer; what it thought before does not count.

    Raises:
        GuardError: the answer was cut off, or no line of it is a verdict and nothing else.
    """
    try:
        choices = _Chat.model_validate_json(content).choices
    except ValidationError as error:
        raise GuardError("the guard model's answer can't be read") from error
    if choices and choices[0].finish_reason == "length":
        raise GuardError("the guard model's answer was cut off")
    said = choices[0].message.content.rpartition(_THOUGHT)[2] if choices else ""
    verdicts = [] if _THINKS in said else [each[1].lower() for each in _VERDICT.finditer(said)]
    if not verdicts:
        raise GuardError("the guard model's answer says neither safe nor unsafe")
    return max(map(_SCORES.__getitem__, verdicts))


async def _post(client: httpx.AsyncClient, guard: GuardSettings, path: str, body: dict[str, object]) -> bytes:
    """The answer, which has to be whole in time and may not be of any size."""
    try:
        async with asyncio.timeout(guard.timeout_seconds):
            return await _tried(client, f"{guard.url}/{path}", body)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise GuardError("the guard model did not answer in time") from error
    except httpx.HTTPStatusError as error:
        raise GuardError(f"the guard model answered with status {error.response.status_code}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise GuardError("the guard model can't be reached") from error


async def _tried(client: httpx.AsyncClient, url: str, body: dict[str, object]) -> bytes:
    """Sent again where a pause may help: one lost request would leave a whole file not screened."""
    for n_tried in range(1, MAX_TRIES):
        try:
            return await _once(client, url, body)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in _MAY_PASS:
                raise
        await asyncio.sleep(_PAUSE_SECONDS * 2 ** (n_tried - 1))
    return await _once(client, url, body)


async def _once(client: httpx.AsyncClient, url: str, body: dict[str, object]) -> bytes:
    content = bytearray()
    async with client.stream("POST", url, json=body) as response:
        response.raise_for_status()
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > MAX_ANSWER_BYTES:
                raise GuardError("the guard model's answer can't be read")
    return bytes(content)
