"""A score as a JSON object: the schema that the endpoint is given, and the strict reading of what comes back.

An endpoint may take the schema and not hold the model to it, so nothing is believed: one object, one member, once, a
whole number in range. Anything else is no score.
"""

from __future__ import annotations

from typing import Any

from evaluator.judges.judge import Score
from evaluator.judges.number_scores import HIGHEST, NO_NUMBER
from policies.datasets.strict_json import decode_line

MEMBER = "score"
RESPONSE_FORMAT: dict[str, Any] = {  # Any: a JSON document
    "type": "json_schema",
    "json_schema": {
        "name": MEMBER,
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {MEMBER: {"type": "integer", "minimum": 0, "maximum": HIGHEST}},
            "required": [MEMBER],
            "additionalProperties": False,
        },
    },
}


def score_of_json(text: str) -> Score:
    """The score of a reply that is `{"score": n}` and nothing else."""
    value = decode_line(text.encode("utf-8", "surrogatepass"), 1)
    if isinstance(value, tuple):
        return Score(None, f"{NO_NUMBER}: the reply is not JSON as it should be ({value[0].code})")
    if isinstance(value, dict) and value.keys() == {MEMBER}:
        score = value[MEMBER]
        if isinstance(score, int) and not isinstance(score, bool) and 0 <= score <= HIGHEST:
            return Score(float(score))
    return Score(None, f"{NO_NUMBER}: the reply is not an object whose only member is a score from 0 to {HIGHEST}")
