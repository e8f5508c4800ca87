"""What is found out of base model and suite before reference adapters are planned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from policies.contract.artifacts import digest_file
from policies.errors import EvaluationError, IntegrityError
from trainer.qualification.cached_runs import RunFailure, execute, finished
from trainer.qualification.campaign import Campaign, require_time
from trainer.qualification.own_answers import ANSWERS_FILE, MAX_NEW_TOKENS, question_lines
from trainer.qualification.records import (
    OpenedSuite,
    OpeningAssignment,
    OpeningRun,
    OwnAnswersAssignment,
    OwnAnswersResult,
    OwnAnswersRun,
    versions,
)
from trainer.qualification.references import Reference
from trainer.qualification.training_rows import keep_rows


class OwnAnswers(NamedTuple):
    """What the base model says."""

    path: Path
    """Training file of its greedy answers."""
    result: OwnAnswersResult


def ask_base(campaign: Campaign, references: Sequence[Reference], n_rows: int) -> OwnAnswers:
    """What the base model says to questions of the benign files.

    Raises:
        EvaluationError: it gave no answers, or the budget is used up.
        IntegrityError: the folder holds other answers.
    """
    questions = keep_rows(campaign.folder / "data", question_lines(references, n_rows))
    run = OwnAnswersRun(
        base=campaign.base,
        base_model=campaign.resolved.digest,
        questions=digest_file(questions),
        max_new_tokens=MAX_NEW_TOKENS,
        versions=versions(),
    )
    assignment = OwnAnswersAssignment(
        run=run,
        questions_file=str(questions.resolve()),
        cache_dir=str(campaign.cache_dir.resolve()),
        parent_pid=os.getpid(),
    )
    launch, folder = campaign.launches.own_answers, campaign.folder / "own_answers" / run.digest[7:23]
    if finished(folder, run.digest, OwnAnswersResult) is None:
        require_time(campaign, "the base model was asked for its own answers")
        campaign.tell("asking the base model for its own answers")
    result = execute(folder, assignment, run=run.digest, kind=OwnAnswersResult, launch=launch)
    if isinstance(result, RunFailure):
        raise EvaluationError(f"the base model could not be asked: {result.message} ({result.code})")
    path = folder / ANSWERS_FILE
    if not path.is_file() or digest_file(path) != result.answers:
        raise IntegrityError(f"{path} is not what the base model said; remove the folder")
    return OwnAnswers(path, result)


def open_suite(campaign: Campaign) -> OpenedSuite:
    """What the suite measures with, opened anew at each start.

    Raises:
        EvaluationError: a prompt set, a twin, the canaries, a classifier or a judge can't be had.
    """
    run = OpeningRun(base=campaign.base, base_model=campaign.resolved.digest, suite=campaign.policy.spec.suite)
    assignment = OpeningAssignment(
        run=run,
        cache_dir=str(campaign.cache_dir.resolve()),
        store_url=campaign.store_url,
        parent_pid=os.getpid(),
    )
    folder = campaign.folder / "suite"
    (folder / "result.json").unlink(missing_ok=True)
    result = execute(folder, assignment, run=run.digest, kind=OpenedSuite, launch=campaign.launches.opening)
    if isinstance(result, RunFailure):
        raise EvaluationError(f"{result.message} ({result.code})")
    return result
