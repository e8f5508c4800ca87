"""The job's files, as probes see them."""

from __future__ import annotations

from pathlib import Path

from evaluator.subject import FileRows, Subject
from policies.contract.artifacts import digest_file
from policies.datasets.reader import read_conversations
from policies.errors import EvaluationError


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
        raise EvaluationError("the training file is missing; give it to the evaluation")
    if not subject.training.rows:
        raise EvaluationError("the training file has no rows")
    return subject.training
