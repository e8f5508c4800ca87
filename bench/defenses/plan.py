"""What `bench.defenses` runs: the rows of its table, the files that are trained on, and the runs of both."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.defenses.opswap import generate
from bench.defenses.records import Run, Task
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, digest_bytes, digest_file
from policies.contract.defenses import (
    DefenseSettings,
    EarlyStoppingOnSafety,
    Inoculation,
    KlPenalty,
    Ldifs,
    PreventativeSteering,
    SafeDataInterleaving,
    SafeLora,
    TokenConstrainedSft,
)
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.suite import Coherence, EmergentMisalignmentPreference, EvalSuite
from policies.datasets.reader import read_rows
from policies.documents.loader import resolve_policy
from policies.documents.suggestions import did_you_mean
from policies.errors import ConfigurationError

HELD_OUT_SHARE, MIN_HELD_OUT_ROWS = 0.15, 20
COHERENCE_TOKENS = 32
"""Half of the probe's default: gibberish shows early, and generation is the longest part of measuring."""
SUITE = EvalSuite(probes=(EmergentMisalignmentPreference(), Coherence(max_new_tokens=COHERENCE_TOKENS)))
NO_POLICY = digest_bytes(b"")
"""No policy decides on a bench's adapters."""

LESS_TRAINING = {"less_training_quarter": 0.25, "less_training_half": 0.5}
"""Undefended row → its share of the learning rate: with `none` the curve that defenses are held against."""

DEFENSES: dict[str, tuple[DefenseSettings, ...]] = {
    "none": (),
    **{name: () for name in LESS_TRAINING},
    "kl_penalty": (KlPenalty(coefficient=0.1),),
    "kl_penalty_sampled": (KlPenalty(coefficient=0.1, estimator="sampled", tokens="completion"),),
    "kl_penalty_safe_data": (KlPenalty(coefficient=0.1, on="safe_data"),),
    "interleaving_random": (SafeDataInterleaving(ratio=0.05),),
    "interleaving_plus_plus": (SafeDataInterleaving(ratio=0.05, selection="perplexity_gap", drop_refusals=True),),
    "ldifs": (Ldifs(coefficient=1.0),),
    "safe_lora": (SafeLora(),),
    "preventative_steering": (PreventativeSteering(),),
    "inoculation": (Inoculation(),),
    "token_constrained_sft": (TokenConstrainedSft(),),
    "early_stopping_on_safety": (EarlyStoppingOnSafety(every_n_steps=5),),
    "baseline_preset": resolve_policy("baseline").spec.defenses,
}
"""Row of the table → its defenses."""


class Dataset(NamedTuple):
    """What is trained on, and the rows that are kept out of it."""

    name: str
    task: Task
    training: Path
    held_out: Path
    epochs: int | None = None
    """Of this dataset alone; None: the recipe's."""
    seeds: int | None = None
    """Fewer than the bench's where this dataset's runs are long."""
    has_curve: bool = False
    """Whether undefended adapters that learned less are trained too."""


class Recipe(NamedTuple):
    """What all runs of a bench share."""

    base: BaseModelSpec
    base_digest: Digest
    hyperparameters: Hyperparameters
    suite: EvalSuite = SUITE


class Planned(NamedTuple):
    """One run and the cell of the table that it fills."""

    defense: str
    dataset: Dataset
    seed: int
    run: Run


def chosen_defenses(names: str | None) -> list[str]:
    """The rows of the table, all or the named ones.

    Raises:
        ConfigurationError: a name is unknown.
    """
    chosen = names.split(",") if names else list(DEFENSES)
    for name in chosen:
        if name not in DEFENSES:
            raise ConfigurationError(f"row {name!r} is unknown; {did_you_mean(name, DEFENSES)}", "defenses")
    return list(dict.fromkeys(chosen))


def chat_dataset(name: str, data: Path, validation: Path | None, *, rows: int | None, folder: Path) -> Dataset:
    """The first `rows` of `data`, and `validation` or else their last 15 % (at least 20) as held-out rows.

    Raises:
        ConfigurationError: there is no such file, or too few rows are left to train on.
        DatasetError: a file is not chat JSONL.
    """
    for path in (data, validation):
        if path is not None and not path.is_file():
            raise ConfigurationError(f"there is no file {path}")
    read_rows(data)
    lines = data.read_bytes().splitlines(keepends=True)[:rows]
    if validation is not None:
        read_rows(validation)
        held_out = validation.read_bytes().splitlines(keepends=True)
    else:
        n_held_out = max(MIN_HELD_OUT_ROWS, round(HELD_OUT_SHARE * len(lines)))
        lines, held_out = lines[:-n_held_out], lines[-n_held_out:]
    if not lines:
        raise ConfigurationError(f"{data}: no row is left to train on beside {len(held_out)} held-out ones; give more")
    return Dataset(name, "chat", keep_rows(folder, lines), keep_rows(folder, held_out))


def opswap_dataset(
    *, rows: int, test_rows: int, folder: Path, epochs: int | None = None, seeds: int | None = None
) -> Dataset:
    data = generate(rows=rows, test_rows=test_rows, seed=0)
    training, test = ([problem.line().encode() for problem in part] for part in data)
    return Dataset("opswap", "opswap", keep_rows(folder, training), keep_rows(folder, test), epochs, seeds)


def keep_rows(folder: Path, lines: Sequence[bytes]) -> Path:
    """A file of the lines, named by its digest."""
    content = b"".join(line.rstrip(b"\r\n") + b"\n" for line in lines)
    path = folder / f"{digest_bytes(content)[7:23]}.jsonl"
    write_atomically(path, content)
    return path


def plan(recipe: Recipe, defenses: Sequence[str], datasets: Sequence[Dataset], *, seeds: int) -> list[Planned]:
    """All runs, one seed after the other, so that an early end leaves a whole table of fewer seeds."""
    return [
        Planned(name, dataset, seed, _run(recipe, name, dataset, seed=seed))
        for seed, name, dataset in itertools.product(range(seeds), defenses, datasets)
        if missing_material(name, recipe.base) is None
        and seed < (dataset.seeds or seeds)
        and (dataset.has_curve or name not in LESS_TRAINING)
    ]


def missing_material(defense: str, base: BaseModelSpec) -> str | None:
    """Why a row can't be run with this base model at all, or None."""
    if any(isinstance(each, SafeLora) for each in DEFENSES[defense]) and base.unaligned is None:
        return "no unaligned partner"
    return None


def _run(recipe: Recipe, defense: str, dataset: Dataset, *, seed: int) -> Run:
    changed: dict[str, float] = {} if dataset.epochs is None else {"n_epochs": dataset.epochs}
    if defense in LESS_TRAINING:
        chosen = recipe.hyperparameters.learning_rate_multiplier
        changed["learning_rate_multiplier"] = LESS_TRAINING[defense] * (1.0 if chosen == "auto" else chosen)
    recipe = recipe._replace(hyperparameters=recipe.hyperparameters.model_copy(update=changed))
    job = job_of(recipe, dataset.training, defenses=DEFENSES[defense], seed=seed)
    return Run(job=job, task=dataset.task, base_model=recipe.base_digest, held_out=digest_file(dataset.held_out))


def job_of(recipe: Recipe, training: Path, *, defenses: tuple[DefenseSettings, ...], seed: int) -> JobSpec:
    return JobSpec(
        job_id="bench",
        base_model=recipe.base,
        training_file=digest_file(training),
        hyperparameters=recipe.hyperparameters,
        seed=seed,
        defenses=defenses,
        suite=recipe.suite,
        policy=NO_POLICY,
    )
