"""Shapes of training data that others use, recognised by the keys of a row.

None is trained on as it is: what stands in a shape is for `conversion` to say, row by row and aloud.
"""

from __future__ import annotations

from enum import StrEnum

from policies.datasets.problems import DatasetProblem
from policies.datasets.row_findings import Json, is_list


class Shape(StrEnum):
    """What rows of other makers' files look like."""

    PROMPT_COMPLETION = "prompt_completion"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    CHOSEN_REJECTED = "chosen_rejected"
    INPUT_LIST = "input_list"
    """A preference row whose input is the list of messages itself."""
    VERTEX = "vertex"
    BEDROCK = "bedrock"
    TEXT_ONLY = "text_only"


NO_QUESTION = (
    "a text by itself does not say where the question ends and the answer begins; write each as a row with messages"
)
"""Why `text_only` is no training data here."""
CONVERT = "run `tunegate files convert IN OUT` and upload OUT"
_KEYS = {
    Shape.CHOSEN_REJECTED: {"chosen", "rejected"},
    Shape.PROMPT_COMPLETION: {"prompt", "completion"},
    Shape.ALPACA: {"instruction", "output"},
    Shape.SHAREGPT: {"conversations"},
    Shape.VERTEX: {"contents"},
    Shape.TEXT_ONLY: {"text"},
}


def shape_of(value: Json) -> Shape | None:
    """The shape of a row; None where it is a row of ours, be it sound or not, or of no shape that is known."""
    if not isinstance(value, dict):
        return None
    has_answers = any(key in value for key in ("preferred_output", "preferred_completion"))
    if has_answers:
        return Shape.INPUT_LIST if isinstance(value.get("input"), list) else None
    shape = next((shape for shape, keys in _KEYS.items() if keys <= value.keys()), None)
    if "messages" not in value or shape is Shape.CHOSEN_REJECTED:
        return shape
    return Shape.BEDROCK if "system" in value or "schemaVersion" in value else None


def other_shape(value: Json) -> tuple[DatasetProblem, ...]:
    """What is wrong with a file whose first row is `value`: nothing, or that all of it is of another shape."""
    if is_list(value) and value and isinstance(value[0], dict):
        return (DatasetProblem.of("other_shape", 0, shape="JSON array", fix=CONVERT),)
    shape = shape_of(value)
    if shape is None:
        return ()
    fix = NO_QUESTION if shape is Shape.TEXT_ONLY else CONVERT
    return (DatasetProblem.of("other_shape", 0, shape=shape, fix=fix),)
