"""Tries organisms on the gate, and goes on where an earlier try ended."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.defenses.plan import Recipe, job_of
from bench.red_team.adapter_files import refusal
from bench.red_team.build import keep_file
from bench.red_team.organism import (
    AdapterFileOrganism,
    Organism,
    Resubmission,
    TrainedOrganism,
    TrainingFile,
    by_id,
)
from bench.red_team.runs import Assignment, RedTeamResult, RedTeamRun, launch_child
from bench.red_team.trials import Trial, of_containment, of_outcome, of_refusal
from policies.contract.artifacts import Digest
from policies.contract.jobs import BaseModelSpec
from policies.datasets.fingerprint import DatasetFingerprint, fingerprint
from policies.datasets.reader import read_rows
from policies.documents.schema import CalibrationRecord, ReleasePolicy
from policies.errors import ConfigurationError
from trainer.qualification.cached_runs import Launch, RunFailure, execute, finished, work_off
from trainer.qualification.records import versions
from trainer.qualification.time_left import show_duration

FINGERPRINT_KEY = b"bench red team 1"
"""Of this bench alone; a deployment's is secret."""


class Campaign(NamedTuple):
    """Which gate is tried, and where."""

    base: BaseModelSpec
    base_digest: Digest
    policy: ReleasePolicy
    results: Path
    cache_dir: Path
    tell: Callable[[str], None]
    clock: Callable[[], float]
    """Seconds, of any beginning."""
    budget_seconds: float | None = None
    launch: Launch = launch_child
    jobs: int = 1
    """Runs at a time."""
    calibration: CalibrationRecord | None = None
    """Of the base model, where the gate has one."""


class Planned(NamedTuple):
    """An organism with one seed, and all that its run needs."""

    organism: TrainedOrganism
    seed: int
    files: tuple[Path, ...]
    run: RedTeamRun

    def folder(self, campaign: Campaign) -> Path:
        return campaign.results / "runs" / self.run.digest[7:23]


class Harvest(NamedTuple):
    """What came of it."""

    trials: tuple[Trial, ...]
    left: tuple[str, ...]
    """For want of time."""


def plan(organisms: Sequence[Organism], campaign: Campaign, *, seeds: int | None) -> list[Planned]:
    """The trainings, one seed after another, so that an early end leaves whole seeds.

    Args:
        seeds: at most so many of each organism.
    """
    trained = [each for each in organisms if isinstance(each, TrainedOrganism)]
    most = max((_seeds(each, seeds) for each in trained), default=0)
    return [_planned(each, seed, campaign) for seed in range(most) for each in trained if seed < _seeds(each, seeds)]


def try_all(planned: Sequence[Planned], campaign: Campaign) -> Harvest:
    """Train and judge what is not known yet, in order, as far as the time goes.

    A run that failed is tried again at each start. The first one may always try.
    """
    known = {each.run.digest: finished(each.folder(campaign), each.run.digest, RedTeamResult) for each in planned}
    trials = {each.run.digest: _trial(each, result) for each in planned if (result := known[each.run.digest])}
    seconds = [result.whole_seconds for result in known.values() if result is not None]
    open_runs, started, n_known = (
        [each for each in planned if not known[each.run.digest]],
        campaign.clock(),
        len(trials),
    )
    campaign.tell(f"{len(planned)} trainings, {n_known} of them known")

    def attempt(run: Planned) -> None:
        began = campaign.clock()
        outcome = _execute(run, campaign)
        if not isinstance(outcome, RunFailure):
            seconds.append(outcome.whole_seconds)
        trial = trials[run.run.digest] = _trial(run, outcome)
        number = len(trials) - n_known
        still = statistics.mean(seconds) * (len(open_runs) - number) / campaign.jobs if seconds else 0.0
        campaign.tell(_progress(f"[{number}/{len(open_runs)}]", trial, campaign.clock() - began, still))

    def may_begin(run: Planned) -> bool:
        return _fits(seconds, campaign, campaign.clock() - started)

    left = work_off(open_runs, attempt, may_begin, jobs=campaign.jobs)
    tried = tuple(trials[each.run.digest] for each in planned if each.run.digest in trials)
    return Harvest(tried, tuple(f"{each.organism.id}, seed {each.seed}" for each in left))


def _trial(planned: Planned, outcome: RedTeamResult | RunFailure) -> Trial:
    return of_outcome(planned.organism, planned.seed, outcome)


def check_all(
    organisms: Sequence[Organism], everyone: Sequence[Organism], *, seeds: int | None, folder: Path
) -> list[Trial]:
    """Try what needs no training; built files go to `folder`.

    Args:
        everyone: among whom a resubmission finds what it resubmits.
    """
    trials = []
    for each in organisms:
        if isinstance(each, AdapterFileOrganism):
            trials += [of_refusal(each, name, refusal(variant)) for name, variant in each.variants.items()]
        elif isinstance(each, Resubmission):
            first = by_id(everyone, each.of)
            if not isinstance(first, TrainedOrganism):
                raise ConfigurationError(f"{each.id}: {first.id} is not trained, so nothing of it is resubmitted", "of")
            for seed in range(_seeds(each, seeds)):
                earlier = _fingerprint(first.training[0], seed, folder)
                trials.append(
                    of_containment(each, seed, _fingerprint(each.training, seed, folder).containment(earlier))
                )
    return trials


def _seeds(organism: TrainedOrganism | Resubmission, most: int | None) -> int:
    return organism.seeds if most is None else min(most, organism.seeds)


def _planned(organism: TrainedOrganism, seed: int, campaign: Campaign) -> Planned:
    files = tuple(keep_file(each, seed, campaign.results / "data") for each in organism.training)
    recipe = Recipe(campaign.base, campaign.base_digest, organism.hyperparameters, campaign.policy.spec.suite)
    run = RedTeamRun(
        jobs=tuple(job_of(recipe, each, defenses=campaign.policy.spec.defenses, seed=seed) for each in files),
        afterwards=organism.afterwards,
        policy=campaign.policy.digest,
        calibration=None if campaign.calibration is None else campaign.calibration.digest,
        base_model=campaign.base_digest,
        versions=versions(),
    )
    return Planned(organism, seed, files, run)


def _execute(planned: Planned, campaign: Campaign) -> RedTeamResult | RunFailure:
    assignment = Assignment(
        run=planned.run,
        policy=campaign.policy,
        calibration=campaign.calibration,
        training_files=tuple(str(path.resolve()) for path in planned.files),
        cache_dir=str(campaign.cache_dir.resolve()),
        parent_pid=os.getpid(),
    )
    folder = planned.folder(campaign)
    return execute(folder, assignment, run=planned.run.digest, kind=RedTeamResult, launch=campaign.launch)


def _fits(known_seconds: Sequence[float], campaign: Campaign, spent: float) -> bool:
    if campaign.budget_seconds is None or not known_seconds:
        return True
    return spent + statistics.mean(known_seconds) <= campaign.budget_seconds


def _progress(number: str, trial: Trial, took: float, still: float) -> str:
    said = f"{trial.organism}, {trial.name}: {trial.state}" + (f" ({trial.note})" if trial.note else "")
    return f"{number} {said}: {show_duration(took)}; about {show_duration(still)} left"


def _fingerprint(training: TrainingFile, seed: int, folder: Path) -> DatasetFingerprint:
    return fingerprint(read_rows(keep_file(training, seed, folder)), FINGERPRINT_KEY)
