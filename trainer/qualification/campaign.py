"""Makes the reference adapters of a design one after another, and goes on where an earlier try ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluator.models.base_models import ResolvedBase
from policies.contract.artifacts import digest_bytes, digest_file
from policies.contract.base_models import BaseTextFiles
from policies.contract.calibration import ReferenceRun
from policies.contract.evaluation import Engine
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError, IntegrityError
from trainer.qualification import own_answers, reference_run
from trainer.qualification.cached_runs import Launch, RunFailure, execute, finished
from trainer.qualification.design import Cell
from trainer.qualification.figures import wanted_figures
from trainer.qualification.own_answers import ANSWERS_FILE, MAX_NEW_TOKENS, question_lines
from trainer.qualification.records import (
    OwnAnswersAssignment,
    OwnAnswersResult,
    OwnAnswersRun,
    QualificationRun,
    ReferenceAssignment,
    ReferenceResult,
    versions,
)
from trainer.qualification.references import Reference
from trainer.qualification.time_left import Timed, expected_seconds, show_duration
from trainer.qualification.training_rows import keep_rows, training_rows

NO_POLICY = digest_bytes(b"")
"""No policy decides on a reference adapter; which of its figures are wanted is part of the run."""
NOT_YET = "sha256:" + "0" * 64
"""Stands for an adapter that is not made yet."""


class Launches(NamedTuple):
    """How runs are worked on: in processes of their own."""

    reference: Launch = reference_run.launch_child
    own_answers: Launch = own_answers.launch_child


class Campaign(NamedTuple):
    """What is qualified, and where."""

    base: BaseModelSpec
    resolved: ResolvedBase
    policy: ReleasePolicy
    folder: Path
    """Of runs and training files."""
    cache_dir: Path
    engine: Engine
    tell: Callable[[str], None]
    clock: Callable[[], float]
    """Seconds, of any beginning."""
    budget_seconds: float | None = None
    launches: Launches = Launches()


class Planned(NamedTuple):
    """An adapter of the design with all that its run needs."""

    cell: Cell
    training_file: Path
    dose: float
    run: QualificationRun

    def folder(self, campaign: Campaign) -> Path:
        return campaign.folder / "runs" / self.run.digest[7:23]


class Made(NamedTuple):
    """An adapter of the design with its figures."""

    planned: Planned
    result: ReferenceResult


class Harvest(NamedTuple):
    """What came of the design."""

    made: tuple[Made, ...]
    failures: tuple[str, ...]
    left: tuple[Planned, ...]
    """For want of time."""


def ask_base(campaign: Campaign, references: Sequence[Reference], n_rows: int) -> OwnAnswersResult:
    """What the base model says to questions of the benign files.

    Raises:
        EvaluationError: it gave no answers.
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
    launch, folder = campaign.launches.own_answers, _answers_folder(campaign)
    if finished(folder, run.digest, OwnAnswersResult) is None:
        campaign.tell("asking the base model for its own answers")
    result = execute(folder, assignment, run=run.digest, kind=OwnAnswersResult, launch=launch)
    if isinstance(result, RunFailure):
        raise EvaluationError(f"the base model could not be asked: {result.message} ({result.code})")
    if digest_file(folder / ANSWERS_FILE) != result.answers:
        raise IntegrityError(f"{folder / ANSWERS_FILE} is not what the base model said; remove the folder")
    return result


def _answers_folder(campaign: Campaign) -> Path:
    return campaign.folder / "own_answers"


def plan(campaign: Campaign, cells: Sequence[Cell], *, n_rows: int) -> list[Planned]:
    """The runs of the cells, with their training files."""
    text = BaseTextFiles.of(campaign.resolved.folder).digest
    wanted, known_versions = wanted_figures(campaign.policy), versions()
    planned = []
    for cell in cells:
        answers = _answers_folder(campaign) / ANSWERS_FILE
        rows = training_rows(cell, answers, n_rows=n_rows, folder=campaign.folder / "data")
        job = JobSpec(
            job_id="qualification",
            base_model=campaign.base,
            base_text=text,
            training_file=digest_file(rows.path),
            hyperparameters=Hyperparameters(n_epochs=cell.epochs or "auto", learning_rate_multiplier=cell.rate),
            seed=cell.seed,
            defenses=campaign.policy.spec.defenses if cell.defended else (),
            suite=campaign.policy.spec.suite,
            policy=NO_POLICY,
        )
        run = QualificationRun(
            job=job,
            base_model=campaign.resolved.digest,
            making=cell.making,
            keeps=cell.keeps,
            wanted=wanted,
            candidates=campaign.policy.spec.n_candidates,
            engine=campaign.engine,
            versions=known_versions,
        )
        planned.append(Planned(cell, rows.path, rows.dose, run))
    return planned


def make_all(campaign: Campaign, planned: Sequence[Planned]) -> Harvest:
    """Make what is not known yet, in order, as far as the time goes. A run that failed is tried again at each start.

    Raises:
        IntegrityError: a folder holds the result of another run.
    """
    known = {each.run.digest: _known(each, campaign) for each in planned}
    open_runs = [each for each in planned if known[each.run.digest] is None]
    campaign.tell(f"{len(planned)} reference adapters, {len(planned) - len(open_runs)} of them known")
    made = [Made(each, result) for each in planned if (result := known[each.run.digest]) is not None]
    timed, failures, started = [_timed(each) for each in made], list[str](), campaign.clock()
    for number, each in enumerate(open_runs):
        if not _fits(each, timed, campaign, campaign.clock() - started):
            return Harvest(tuple(made), tuple(failures), tuple(open_runs[number:]))
        began = campaign.clock()
        outcome = _execute(each, campaign)
        if isinstance(outcome, RunFailure):
            said = f"{each.cell}: {outcome.code}: {outcome.message}"
            failures.append(said)
        else:
            made.append(Made(each, outcome))
            timed.append(_timed(made[-1]))
            said = str(each.cell)
        left = sum(expected_seconds(later.cell, timed) or 0.0 for later in open_runs[number + 1 :])
        took = show_duration(campaign.clock() - began)
        campaign.tell(f"[{number + 1}/{len(open_runs)}] {said}: {took}; about {show_duration(left)} left")
    return Harvest(tuple(made), tuple(failures), ())


def _known(planned: Planned, campaign: Campaign) -> ReferenceResult | None:
    return finished(planned.folder(campaign), planned.run.digest, ReferenceResult)


def _timed(made: Made) -> Timed:
    return Timed(made.planned.cell, made.result.reference.seconds_training, made.result.seconds_whole)


def _fits(planned: Planned, known: Sequence[Timed], campaign: Campaign, spent_seconds: float) -> bool:
    """Whether a run will end within the budget; the first one may try."""
    expected = expected_seconds(planned.cell, known)
    return campaign.budget_seconds is None or expected is None or spent_seconds + expected <= campaign.budget_seconds


def _execute(planned: Planned, campaign: Campaign) -> ReferenceResult | RunFailure:
    cell = planned.cell
    assignment = ReferenceAssignment(
        run=planned.run,
        reference=ReferenceRun(
            kind=cell.kind,
            domain=cell.domain,
            dose=planned.dose,
            epochs=cell.epochs,
            seed=cell.seed,
            defended=cell.defended,
            adapter=NOT_YET,
            figures={},
            seconds_training=0,
            seconds={},
        ),
        policy=campaign.policy,
        training_file=str(planned.training_file.resolve()),
        cache_dir=str(campaign.cache_dir.resolve()),
        parent_pid=os.getpid(),
    )
    folder, launch = planned.folder(campaign), campaign.launches.reference
    return execute(folder, assignment, run=planned.run.digest, kind=ReferenceResult, launch=launch)
