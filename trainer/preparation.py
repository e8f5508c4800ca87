"""From a job's spec and files to all that a trainer is built from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from peft import PeftModel
from pydantic import ValidationError
from transformers import PreTrainedModel

from evaluator.models.loading import ResolvedBase, best_dtype, default_device, load_base, resolve_base_model
from policies.contract.artifacts import Digest, canonical_json, digest_bytes
from policies.contract.base_models import BaseTextFiles, require_text
from policies.contract.composition import require_composable
from policies.contract.evaluation import AdapterProof
from policies.contract.hyperparameters import ResolvedHyperparameters
from policies.contract.jobs import Dpo, JobSpec
from policies.contract.store import ArtifactStore
from policies.errors import ConfigurationError, DatasetError, ValidationFileError
from policies.rendering.adapter_companions import companion_files
from policies.rendering.encoding import Encoder
from trainer.data import (
    Tokenised,
    TokenisedRow,
    TrainingRow,
    read_training_rows,
    shuffled,
    tokenise_each,
    tokenise_pairs,
)
from trainer.defense import Defense, DefenseContext, RunMaterial
from trainer.loop.packing import require_rows_apart
from trainer.loop.progress import Hooks
from trainer.lora import attach_lora, begin_with
from trainer.losses.reference_scores import ReferenceScores
from trainer.losses.steady_base import hold_steady
from trainer.material import Material
from trainer.registry import build_defenses


class RunFiles(NamedTuple):
    """Where a run finds its files and leaves its results."""

    training_file: Path
    validation_file: Path | None
    folder: Path
    """Scratch and results; the adapter comes to lie in `folder/adapter`."""
    cache_dir: Path
    store: ArtifactStore | None = None
    continued: Path | None = None
    """The released adapter that a job continues from."""


def prepare(spec: JobSpec, run_files: RunFiles, hooks: Hooks) -> Material:
    """Read and check the files, load the base model with the adapter to train, and start the defenses."""
    require_composable(spec.defenses, spec.method)
    customer_rows = shuffled(_read(run_files.training_file, spec, name="training file"), spec.seed)
    hyperparameters = resolved_hyperparameters(spec, len(customer_rows))
    resolved = resolve_base_model(spec.base_model, run_files.cache_dir, may_remember=True)
    require_text(BaseTextFiles.of(resolved.folder), spec.base_text, spec.base_model.name)
    base = load_base(resolved, quantization=spec.base_model.trainer.quantization)
    assert isinstance(base.model, PreTrainedModel)
    context = DefenseContext(spec.seed, run_files.store, resolved, spec.base_model.unaligned, run_files.cache_dir)
    defenses = build_defenses(spec.defenses, context)
    rows = customer_rows
    for defense in defenses:
        rows = defense.prepare_dataset(rows)
    data, customer_tokens = _tokenise(rows, spec, base.encoder)
    validation = _held_out(run_files.validation_file, spec, base.encoder)
    if spec.base_model.trainer.packing and not isinstance(spec.method, Dpo):
        require_rows_apart(base.model)
    hold_steady(base.model)  # the recipe's dropout is the adapter's; under the base's own, no reference would hold
    model, start = _adapted(base.model, spec, run_files=run_files, base_digest=resolved.digest, hooks=hooks)
    supervised = [row for row in data if isinstance(row, TokenisedRow)]
    scores = ReferenceScores(supervised, key=reference_key(spec, resolved, defenses), cache_dir=run_files.cache_dir)
    limit, continues = spec.base_model.max_sequence_tokens, start is not None
    run = RunMaterial(model, base.tokenizer, base.encoder, resolved, limit, scores, hooks.tell, continues)
    for defense in defenses:
        defense.start(run)
    return Material(
        base_digest=resolved.digest,
        start=start,
        model=model,
        tokenizer=base.tokenizer,
        companions=companion_files(base.encoder),
        defenses=defenses,
        data=data,
        validation=validation,
        hyperparameters=hyperparameters,
        n_customer_rows=len(customer_rows),
        customer_tokens=customer_tokens,
    )


def _adapted(
    base: PreTrainedModel, spec: JobSpec, *, run_files: RunFiles, base_digest: Digest, hooks: Hooks
) -> tuple[PeftModel, AdapterProof | None]:
    """The base with the adapter to train: a fresh one, or with a proof the one of the model that the job continues.

    Raises:
        ConfigurationError: the adapter is missing, or of another base model.
    """
    name, revision = spec.base_model.published
    model = attach_lora(base, spec.base_model.lora, seed=spec.seed, name=name, revision=revision)
    if spec.continues is None:
        return model, None
    parent = spec.continues.parent
    if run_files.continued is None:
        raise ConfigurationError(f"the job continues {parent.model}, whose adapter is not given", "continues")
    if base_digest != spec.continues.base_model:
        raise ConfigurationError(
            f"{parent.model} was trained on base model {spec.continues.base_model}, but {spec.base_model.name} is "
            f"{base_digest}; train on the base model as it is now",
            "continues",
        )
    hooks.tell(f"Training goes on from {parent.model}")
    return model, begin_with(model, run_files.continued, adapter=parent.adapter, base_model=base_digest)


def _held_out(path: Path | None, spec: JobSpec, encoder: Encoder) -> Tokenised | None:
    if path is None:
        return None
    try:
        return _tokenise(_read(path, spec, name="validation file"), spec, encoder)[0]
    except DatasetError as error:
        raise ValidationFileError(error.message, error.param) from error


def _read(path: Path, spec: JobSpec, *, name: str) -> list[TrainingRow]:
    return read_training_rows(path, name=name, method=spec.method)


def _tokenise(rows: Sequence[TrainingRow], spec: JobSpec, encoder: Encoder) -> tuple[Tokenised, int]:
    """All samples, and the tokens of those that are the customer's."""
    limit = spec.base_model.max_sequence_tokens
    if isinstance(spec.method, Dpo):
        pairs = tokenise_pairs(rows, encoder, max_tokens=limit)
        return pairs, sum(pair.n_tokens for pair in pairs)
    each = tokenise_each(rows, encoder, max_tokens=limit)
    own = [sample for row, samples in zip(rows, each, strict=True) if not row.is_safe for sample in samples]
    return [sample for samples in each for sample in samples], sum(sample.n_tokens for sample in own)


def reference_key(spec: JobSpec, base: ResolvedBase, defenses: Sequence[Defense]) -> Digest:
    """What besides the rows decides the reference's scores: the base, its format, and contexts around forwards."""
    contexts = [each.forward_digest() for each in defenses if each.changes_forwards]
    dtype = str(best_dtype(default_device()))
    return digest_bytes(canonical_json([base.digest, spec.base_model.trainer.quantization, dtype, contexts]))


def resolved_hyperparameters(spec: JobSpec, n_rows: int) -> ResolvedHyperparameters:
    """The numbers that a file of `n_rows` is trained with.

    Raises:
        ConfigurationError: they can't be used.
    """
    try:
        return spec.hyperparameters.resolve(n_rows, spec.base_model.base_learning_rate)
    except ValidationError as error:
        raise ConfigurationError(f"hyperparameters can't be used: {error}", "hyperparameters") from error
