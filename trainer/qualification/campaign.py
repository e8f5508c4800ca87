"""Makes the reference adapters of a design, and goes on where an earlier try ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluator.models.base_models import ResolvedBase
from policies.contract.artifacts import Digest, digest_bytes, digest_file
from policies.contract.base_models import BaseTextFiles
from policies.contract.calibration import ReferenceRun
from policies.contract.evaluation import Engine
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError
from trainer.qualification.cached_runs import Launch, RunFailure, execute, finished, work_off
from trainer.qualification.design import Cell
from trainer.qualification.figures import wanted_figures
from trainer.qualification.own_answers import launch_child as launch_asking
from trainer.qualification.preparation.canary_pair import launch_child as launch_pair
from trainer.qualification.preparation.canary_rows import BUILT_IN
from trainer.qualification.preparation.suite_opening import launch_child as launch_opening
from trainer.qualification.records import (
    OpenedSuite,
    QualificationRun,
    ReferenceAssignment,
    ReferenceResult,
    versions,
)
from trainer.qualification.reference_run import launch_child as launch_making
from trainer.qualification.time_left import Timed, expected_seconds, show_duration
from trainer.qualification.training_rows import training_rows

NO_POLICY = digest_bytes(b"")
"""No policy decides on a reference adapter; which of its figures are wanted is part of the run."""
NOT_YET = "sha256:" + "0" * 64
"""Stands for an adapter that is not made yet."""


class Launches(NamedTuple):
    """How runs are worked on: in processes of their own."""

    reference: Launch = launch_making
    own_answers: Launch = launch_asking
    opening: Launch = launch_opening
    canaries: Launch = launch_pair


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
    deadline: float | None = None
    """By the clock; no run is begun that would end after it."""
    launches: Launches = Launches()
    jobs: int = 1
    """Runs at a time."""
    store_url: str | None = None
    """Of the operator's prompt sets, twins and canaries."""
    canary_data: Path = BUILT_IN
    """What the base model's pair of canaries learns, where it has none yet."""


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


class Given(NamedTuple):
    """What is known before the runs are planned."""

    own_answers: Path
    """Training file of what the base model says."""
    opened: OpenedSuite
    n_rows: int
    """Of a training file."""


def require_time(campaign: Campaign, what: str) -> None:
    """Begin nothing once the budget is used up. What has begun goes on to its end, which nobody can foretell.

    Raises:
        EvaluationError: it is.
    """
    if campaign.deadline is not None and campaign.clock() >= campaign.deadline:
        raise EvaluationError(
            f"no record is written: the time was up before {what}. Run the same command again: it goes on where this "
            "one ended"
        )


def plan(campaign: Campaign, cells: Sequence[Cell], given: Given) -> list[Planned]:
    """The runs of the cells, with their training files."""
    text = BaseTextFiles.of(campaign.resolved.folder).digest
    wanted, known_versions = wanted_figures(campaign.policy), versions()
    planned = []
    for cell in cells:
        rows = training_rows(cell, given.own_answers, n_rows=given.n_rows, folder=campaign.folder / "data")
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
            wanted=wanted,
            candidates=campaign.policy.spec.n_candidates,
            engine=campaign.engine,
            versions=known_versions,
            probes=given.opened.probes,
            instruments=given.opened.instruments,
            judges=given.opened.judges,
        )
        planned.append(Planned(cell, rows.path, rows.dose, run))
    return planned


def make_all(campaign: Campaign, planned: Sequence[Planned]) -> Harvest:
    """Make what is not known yet, in order, as far as the time goes. A run that failed is tried again at each start.

    Raises:
        IntegrityError: a folder holds the result of another run.
    """
    making = _Making(campaign, planned)
    campaign.tell(f"{len(planned)} reference adapters, {len(making.results)} of them known")
    left = work_off(making.open_runs, making.make, making.may_begin, jobs=campaign.jobs)
    made = tuple(Made(each, making.results[each.run.digest]) for each in planned if each.run.digest in making.results)
    return Harvest(made, tuple(making.failures), left)


class _Making:
    """What is known of a design's runs while they are worked on."""

    def __init__(self, campaign: Campaign, planned: Sequence[Planned]) -> None:
        self._campaign = campaign
        known = {each.run.digest: _known(each, campaign) for each in planned}
        self.results = {run: result for run, result in known.items() if result is not None}
        self.open_runs = [each for each in planned if each.run.digest not in self.results]
        self.failures: list[str] = []
        self._timed = [_timed(Made(each, self.results[each.run.digest])) for each in planned if known[each.run.digest]]
        self._ended: set[Digest] = set()

    def may_begin(self, run: Planned) -> bool:
        return _fits(run, self._timed, self._campaign)

    def make(self, run: Planned) -> None:
        began = self._campaign.clock()
        outcome = _execute(run, self._campaign)
        said = str(run.cell)
        if isinstance(outcome, RunFailure):
            said = f"{run.cell}: {outcome.code}: {outcome.message}"
            self.failures.append(said)
        else:
            self.results[run.run.digest] = outcome
            self._timed.append(_timed(Made(run, outcome)))
        self._ended.add(run.run.digest)
        took = show_duration(self._campaign.clock() - began)
        number = f"[{len(self._ended)}/{len(self.open_runs)}]"
        self._campaign.tell(f"{number} {said}: {took}; about {show_duration(self._seconds_left())} left")

    def _seconds_left(self) -> float:
        still = (each for each in self.open_runs if each.run.digest not in self._ended)
        return sum(expected_seconds(each.cell, self._timed) or 0.0 for each in still) / self._campaign.jobs


def _known(planned: Planned, campaign: Campaign) -> ReferenceResult | None:
    return finished(planned.folder(campaign), planned.run.digest, ReferenceResult)


def _timed(made: Made) -> Timed:
    return Timed(made.planned.cell, made.result.reference.seconds_training, made.result.seconds_whole)


def _fits(planned: Planned, known: Sequence[Timed], campaign: Campaign) -> bool:
    """Whether a run will end in time, as far as that can be known."""
    if campaign.deadline is None:
        return True
    return campaign.clock() + (expected_seconds(planned.cell, known) or 0.0) <= campaign.deadline


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
        store_url=campaign.store_url,
        parent_pid=os.getpid(),
    )
    folder, launch = planned.folder(campaign), campaign.launches.reference
    return execute(folder, assignment, run=planned.run.digest, kind=ReferenceResult, launch=launch)
