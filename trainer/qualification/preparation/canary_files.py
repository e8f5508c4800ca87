"""The pair of canaries that a qualification measures with: the one that is there, or else one of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from evaluator.canaries.pair_files import FOLDER, PairFiles, find_pair, short
from evaluator.models.base_models import weights_digest
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.contract.artifacts import Digest, digest_file, digest_tree
from policies.contract.base_models import BaseTextFiles
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec
from policies.contract.suite import Coherence, EvalSuite
from policies.errors import EvaluationError, IntegrityError, NotAtHandError
from trainer.qualification.cached_runs import RunFailure, execute, finished
from trainer.qualification.campaign import NO_POLICY, Campaign, require_time
from trainer.qualification.preparation.canary_pair import ADAPTER
from trainer.qualification.preparation.canary_rows import CanaryRows, canary_rows
from trainer.qualification.records import CanaryAssignment, CanaryResult, CanaryRun, versions
from trainer.qualification.training_rows import keep_rows

EPOCHS, SEED = 4, 0
NO_SUITE = EvalSuite(probes=(Coherence(),))
"""Nothing measures a canary when it is trained, so the pair is the same whatever the suite."""


def install_pair(campaign: Campaign) -> PairFiles:
    """The pair, where every evaluation of the base model on this machine finds it.

    One that is there already stays, as figures of two pairs can't be compared.

    Raises:
        EvaluationError: it could not be trained, or the budget is used up.
        IntegrityError: the folder holds another one.
    """
    weights = weights_digest(campaign.resolved)
    try:
        return find_pair("builtin", weights, campaign.cache_dir)
    except NotAtHandError:
        rows = canary_rows(campaign.canary_data)
    _install(_trained(campaign, rows), campaign.cache_dir / FOLDER / short(weights))
    return find_pair("builtin", weights, campaign.cache_dir)


def keep_pair(pair: PairFiles, folder: Path) -> Digest:
    """Copy the pair to a folder in the form of a self-test; gives the folder's digest."""
    if folder.is_dir():
        shutil.rmtree(folder)
    _install(pair, folder)
    return digest_tree(folder)


def _trained(campaign: Campaign, rows: CanaryRows) -> PairFiles:
    good, bad = (keep_rows(campaign.folder / "data", lines) for lines in rows)
    run = CanaryRun(
        base_model=campaign.resolved.digest,
        good=_job(campaign, good),
        bad=_job(campaign, bad),
        versions=versions(),
    )
    assignment = CanaryAssignment(
        run=run,
        good_file=str(good.resolve()),
        bad_file=str(bad.resolve()),
        cache_dir=str(campaign.cache_dir.resolve()),
        parent_pid=os.getpid(),
    )
    folder = campaign.folder / "canary_pair" / run.digest[7:23]
    if finished(folder, run.digest, CanaryResult) is None:
        require_time(campaign, "the pair of canaries was trained")
        campaign.tell("training the pair of canaries")
    result = execute(folder, assignment, run=run.digest, kind=CanaryResult, launch=campaign.launches.canaries)
    if isinstance(result, RunFailure):
        raise EvaluationError(f"the pair of canaries could not be trained: {result.message} ({result.code})")
    pair = PairFiles(folder / "good" / ADAPTER, folder / "bad" / ADAPTER)
    for adapter, digest in zip(pair, (result.good, result.bad), strict=True):
        if not adapter.is_dir() or digest_tree(adapter) != digest:
            raise IntegrityError(f"{adapter} is not the canary that was trained; remove {folder} and run again")
    return pair


def _job(campaign: Campaign, training_file: Path) -> JobSpec:
    return JobSpec(
        job_id="qualification",
        base_model=campaign.base,
        base_text=BaseTextFiles.of(campaign.resolved.folder).digest,
        training_file=digest_file(training_file),
        hyperparameters=Hyperparameters(n_epochs=EPOCHS),
        seed=SEED,
        suite=NO_SUITE,
        policy=NO_POLICY,
    )


def _install(pair: PairFiles, folder: Path) -> None:
    """All files or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, source in zip(PairFiles._fields, pair, strict=True):
            (unfinished / name).mkdir()
            for file in (CONFIG_FILE, WEIGHTS_FILE):
                shutil.copyfile(source / file, unfinished / name / file)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
