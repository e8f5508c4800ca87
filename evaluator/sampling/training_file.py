"""The job's training file, as probes see it."""

from __future__ import annotations

from evaluator.subject import FileRows, Subject
from policies.errors import EvaluationError


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
