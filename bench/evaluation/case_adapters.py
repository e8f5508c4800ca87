"""The adapters of `bench.evaluation`: one that clearly passes, one that clearly fails, and one near the limit."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file

from evaluator.backends.engines import Attach
from evaluator.prompts.prompt_sets import load_prompts
from evaluator.runner.evaluate import EvaluationInputs, evaluate_adapter
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.contract.artifacts import digest_bytes, digest_file, digest_tree
from policies.contract.defenses import DefenseSettings
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.suite import EmergentMisalignmentPreference, EvalSuite
from policies.documents.schema import ReleasePolicy
from policies.errors import ConfigurationError, EvaluationError
from trainer.loop.progress import Hooks
from trainer.recipe import RunFiles, train

PROBE, METRIC = "emergent_misalignment_preference", "emergent_misalignment_preference.margin"
SUITE = EvalSuite(probes=(EmergentMisalignmentPreference(),))
"""No probe runs while these adapters train."""
NEAR_ENOUGH = 0.05
"""Share of the limit by which a borderline adapter may miss it on the answer pairs that it was sought with."""


class Case(NamedTuple):
    """An adapter and what it was trained on."""

    name: str
    adapter: Path
    training: Path


class Recipe(NamedTuple):
    """How adapters are trained: on the first rows of a file."""

    base: BaseModelSpec
    rows: int
    cache_dir: Path


def train_case(
    name: str, data: Path, recipe: Recipe, *, folder: Path, defenses: tuple[DefenseSettings, ...] = ()
) -> Case:
    """A LoRA adapter after one epoch."""
    folder.mkdir(parents=True)
    training = folder / "training.jsonl"
    training.write_bytes(b"".join(data.read_bytes().splitlines(keepends=True)[: recipe.rows]))
    spec = JobSpec(
        job_id=name,
        base_model=recipe.base,
        training_file=digest_file(training),
        hyperparameters=Hyperparameters(n_epochs=1, learning_rate_multiplier=2),
        seed=0,
        defenses=defenses,
        suite=SUITE,
        policy=digest_bytes(b""),
    )
    hooks = Hooks(report=lambda event: None, should_stop=lambda: False)
    record = train(spec, RunFiles(training, None, folder, recipe.cache_dir), hooks)
    print(f"{name}: trained on {record.n_examples} rows in {record.seconds:.0f} s, loss {record.train_loss:.3f}")
    sys.stdout.flush()
    return Case(name, folder / "adapter", training)


def scaled(case: Case, scale: float, *, name: str, folder: Path) -> Case:
    """The same adapter with every B times `scale`: the share `scale` of its change to the weights."""
    folder.mkdir(parents=True)
    weights = load_file(case.adapter / WEIGHTS_FILE)
    save_file({key: w * scale if ".lora_B." in key else w for key, w in weights.items()}, folder / WEIGHTS_FILE)
    shutil.copyfile(case.adapter / CONFIG_FILE, folder / CONFIG_FILE)
    return Case(name, folder, case.training)


def scale_at(limit: float, drop: Callable[[float], float], *, steps: int) -> float:
    """The scale in [0, 1] whose drop comes nearest to the limit, by bisection; `drop` grows with the scale."""
    low, high, tried = 0.0, 1.0, dict[float, float]()
    for _ in range(steps):
        scale = (low + high) / 2
        tried[scale] = drop(scale)
        if abs(tried[scale] - limit) <= NEAR_ENOUGH * limit:
            break
        low, high = (scale, high) if tried[scale] < limit else (low, scale)
    return min(tried, key=lambda scale: abs(tried[scale] - limit))


def preference_limit(policy: ReleasePolicy) -> float:
    """How far the policy lets the preference margin drop.

    Raises:
        ConfigurationError: it has no such rule.
    """
    for rule in policy.spec.rules:
        if rule.metric == METRIC and rule.max_drop_from_base is not None:
            return rule.max_drop_from_base
    raise ConfigurationError(f"policy {policy.metadata.name} does not limit the drop of {METRIC}", "policy")


def few_pairs(share: float) -> EmergentMisalignmentPreference:
    """The preference probe on the first `share` of the categories of its built-in pairs."""
    lines = load_prompts(PROBE, "builtin", None).content.splitlines()
    categories = list(dict.fromkeys(json.loads(line)["category"] for line in lines))
    return EmergentMisalignmentPreference(exclude_categories=tuple(categories[round(share * len(categories)) :]))


def margin_drop(case: Case, settings: EmergentMisalignmentPreference, attach: Attach, *, cache_dir: Path) -> float:
    """By how many nats/token the adapter lowers the preference margin."""
    suite = EvalSuite(probes=(settings,))
    with attach(case.adapter, digest_tree(case.adapter)) as (backend, proof):
        inputs = EvaluationInputs(suite=suite, policy=digest_bytes(b""), proof=proof)
        report = evaluate_adapter(inputs, backend, cache_dir=cache_dir).report
    measurement = report.measurement(METRIC)
    if measurement is None or measurement.difference is None:
        raise EvaluationError(f"the drop of {case.name} can't be measured: {report.probes[0].error}")
    return -measurement.difference.value
