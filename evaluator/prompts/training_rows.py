"""The job's files, as probes see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from evaluator.probe import FileRows, Subject
from policies.contract.artifacts import digest_file
from policies.contract.dataset import read_conversations
from policies.errors import EvaluationError

ItemT = TypeVar("ItemT")


def file_rows(path: Path) -> FileRows:
    """A file of chat or of preference rows.

    Raises:
        DatasetError: a line of it is neither.
    """
    return FileRows(digest_file(path), read_conversations(path))


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
