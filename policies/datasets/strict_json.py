"""JSON of one line, strictly read: library parsers let duplicate keys, NaN and 1e999 through; this one does not."""

from __future__ import annotations

import json
import math

from policies.datasets.problems import DatasetProblem
from policies.datasets.row_findings import MAX_DEPTH, Json


class _RefusedError(ValueError):
    """JSON that the standard parser would take."""

    def __init__(self, code: str, **details: str) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


def decode_line(content: bytes, number: int) -> Json | tuple[DatasetProblem, ...]:
    """The JSON value of one line, strictly read, or why it has none."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return refusal(number, "invalid_utf8", byte=error.start + 1)
    return refusal(number, "blank_line") if not text.strip() else decode_text(text, number)


def decode_text(text: str, number: int) -> Json | tuple[DatasetProblem, ...]:
    """The same of a text, e.g. one that is part of a line."""
    try:
        return _DECODER.decode(text)
    except _RefusedError as refused:
        return refusal(number, refused.code, **refused.details)
    except RecursionError:
        return refusal(number, "too_deep", limit=MAX_DEPTH)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return refusal(number, "trailing_data", column=error.colno)
        return refusal(number, "invalid_json", detail=f"{error.msg} at column {error.colno}")
    except ValueError:  # an integer of more digits than Python converts
        return refusal(number, "non_finite_number", number="an integer of thousands of digits")


def refusal(number: int, code: str, /, **details: object) -> tuple[DatasetProblem, ...]:
    return (DatasetProblem.of(code, number, **details),)


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value: dict[str, Json] = {}
    for key, member in pairs:
        if key in value:
            raise _RefusedError("duplicate_key", key=ascii(key[:40]))
        value[key] = member
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _RefusedError("non_finite_number", number=text[:40])
    return number


def _no_constant(text: str) -> float:
    raise _RefusedError("non_finite_number", number=text)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_no_constant)
