"""JSON of a request, read one way only: what a later reader could take for something else is refused here.

Refused are NUL and lone surrogates in keys and values, a key that is there twice, NaN and infinities, integers beyond
64 bits, and a document that is deep or has very many values, whose reading costs more than its bytes say.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import JsonValue
from starlette.exceptions import HTTPException

from gateway.kit.plain_text import unstorable_character_in

MAX_DEPTH = 32
MAX_VALUES = 200_000
"""A worker's batch of 1,000 events with their figures has a tenth of it."""
MAX_INTEGER_DIGITS = 19
INTEGERS = range(-(2**63), 2**63)


class GatedRequest(Request):
    """A request whose JSON has passed the gate."""

    async def json(self) -> JsonValue:
        try:
            return parse_json(await self.body())
        except ValueError as error:
            raise HTTPException(400, f"The body is not JSON that can be worked with: {error}") from error


class GatedRoute(APIRoute):
    """The route class of every router, so that no body goes round the gate."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        handle = super().get_route_handler()

        async def gated(request: Request) -> Response:
            return await handle(GatedRequest(request.scope, request.receive))

        return gated


def parse_json(body: bytes) -> JsonValue:
    """The value of a JSON document in UTF-8.

    Raises:
        ValueError: it is not JSON, or says something that is refused.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES} values")
    try:
        value: JsonValue = json.loads(
            body.decode(), parse_constant=_constant, parse_int=_integer, parse_float=_number, object_pairs_hook=_object
        )
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}") from error
    _require_depth(value)
    if (found := unstorable_character_in(value)) is not None:
        raise ValueError(f"its text has the character {found}")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS + 1 or int(digits) not in INTEGERS:
        raise ValueError(f"the integer {digits[:MAX_INTEGER_DIGITS]}… has more than 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:32]} is too large")
    return number


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:64]!a} is there twice")
    return found


def _require_depth(document: JsonValue) -> None:
    level: list[JsonValue] = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH}")


def _children(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
