"""The job's training file, as probes see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from evaluator.subject import FileRows, Subject
from policies.errors import EvaluationError

ItemT = TypeVar("ItemT")


def training_file(subject: Subject) -> FileRows:
    """The training file.

    Raises:
        EvaluationError: there is none here, or it has no rows.
    """
    if subject.training is None:
        raise EvaluationError("the training file is not at hand; give it to the evaluation")
    if not subject.training.rows:
        raise EvaluationError("the training file has no rows")
    return subject.training


def evenly_spread(rows: Sequence[ItemT], limit: int) -> list[ItemT]:
    """At most `limit` rows at even distances, the first one included."""
    step = max(1.0, len(rows) / limit)
    return [rows[int(number * step)] for number in range(min(limit, len(rows)))]
