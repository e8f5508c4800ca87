"""How much more surprising purposely misaligned models find a safe answer than their base model does.

Kaczér et al. 2025 (arXiv 2508.06249), interleaving+:

    s_d = ( mean_k L_mis,k(d) − L_base(d) ) / ( L_base(d) + ε ),   L = −log p(answer | conversation) ÷ its tokens

over K misaligned models. Rows of the highest s_d are those that misalignment has moved away from most. Neither K nor ε
is published; ε is 0.001 here. The end token is not part of the answer. Of a conversation with several answers, the
last one that is trained on is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from evaluator.backends.adapter_proof import prove_adapter
from evaluator.backends.protocol import Choices, last_turn
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.models.adapters import attach_adapter
from evaluator.models.base_models import weights_digest
from evaluator.models.loading import LoadedModel, ResolvedBase
from policies.contract.artifacts import Digest, digest_tree
from policies.contract.safe_data import MisalignedModel, RowScore, SafeDataScores
from policies.errors import AdapterNotLoadedError, ConfigurationError, DefenseError, NonFiniteLossError
from policies.rendering.encoding import Encoder
from trainer.data import TrainingRow, tokenise
from trainer.defenses.safe_data_interleaving.refusals import trains_on_refusal
from trainer.safe_pool import SafePool

EPSILON = 1e-3
"""Nats per token; keeps rows that the base model knows by heart from having an endless gap."""
MADE_BY = "tunegate defense select-safe-data"

Watch = Callable[[str, int, int], None]
"""Stage, units done, units in all."""


class MisalignedAdapter(NamedTuple):
    """An adapter folder and where it comes from."""

    name: str
    folder: Path
    data: Digest | None = None
    seed: int | None = None


class ScorablePool(NamedTuple):
    pool: SafePool
    questions: list[Choices]
    """The answer of each row, given its conversation."""


def perplexity_gap(base_loss: float, misaligned_losses: Sequence[float], epsilon: float) -> float:
    """s_d of one row."""
    return (sum(misaligned_losses) / len(misaligned_losses) - base_loss) / (base_loss + epsilon)


def scorable(pool: SafePool, encoder: Encoder, *, max_tokens: int) -> ScorablePool:
    """The pool as questions to a model.

    Raises:
        DatasetError: a row could not be trained on with this base model.
        DefenseError: a row is too long, or there is none.
    """
    if not pool.rows:
        raise DefenseError("the safe pool has no rows")
    rows = [TrainingRow(row, f"safe pool line {number}", is_safe=True) for number, row in enumerate(pool.rows, start=1)]
    tokenise(rows, encoder, max_tokens=max_tokens)
    return ScorablePool(pool, [last_turn(row, closes_turn=False) for row in pool.rows])


def score_pool(
    pool: ScorablePool, adapters: Sequence[MisalignedAdapter], *, load: Callable[[], LoadedModel], watch: Watch
) -> SafeDataScores:
    """The gaps of all rows; `load` gives the base model afresh, without adapter.

    Raises:
        ConfigurationError: there is no misaligned model, or one is given twice.
        NonFiniteLossError: a loss is NaN or infinite.
        AdapterNotLoadedError: an adapter does not fit the base model, or leaves it as it is.
        DefenseError: a model is not misaligned as far as this pool shows.
    """
    digests = _digests(adapters)
    loaded = load()
    backend = TransformersBackend(loaded)
    base_losses = _losses(backend, pool, name="base model", adapter=False, watch=watch)
    weights = weights_digest(loaded.base)
    del loaded  # one model in memory at a time
    losses = [
        _misaligned_losses(adapter, digest, pool, load=load, watch=watch)
        for adapter, digest in zip(adapters, digests, strict=True)
    ]
    return SafeDataScores(
        pool=pool.pool.digest,
        weights=weights,
        epsilon=EPSILON,
        models=tuple(
            _misaligned_model(adapter, digest, base_losses=base_losses, losses=own)
            for adapter, digest, own in zip(adapters, digests, losses, strict=True)
        ),
        rows=tuple(
            RowScore(
                base_loss=base_loss,
                misaligned_losses=misaligned,
                gap=perplexity_gap(base_loss, misaligned, EPSILON),
                is_refusal=trains_on_refusal(row),
            )
            for row, base_loss, misaligned in zip(pool.pool.rows, base_losses, zip(*losses, strict=True), strict=True)
        ),
        dtype=backend.dtype,
        versions=backend.versions,
    )


def read_scores(content: bytes, *, name: str) -> SafeDataScores:
    """Read scores; `name` is what error messages call them.

    Raises:
        DefenseError: the bytes are not scores, or a gap does not follow from its losses.
    """
    try:
        scores = SafeDataScores.model_validate_json(content)
    except ValidationError as error:
        raise DefenseError(f"{name} are not perplexity gaps ({error}); make them with `{MADE_BY}`") from error
    for line, row in enumerate(scores.rows, start=1):
        if row.gap != perplexity_gap(row.base_loss, row.misaligned_losses, scores.epsilon):
            raise DefenseError(
                f"{name}: the gap of line {line} does not follow from its losses; make them with `{MADE_BY}`"
            )
    return scores


def require_fit(scores: SafeDataScores, pool: SafePool, base: ResolvedBase) -> None:
    """Raises unless the scores are of this pool under these weights."""
    if scores.pool != pool.digest or len(scores.rows) != len(pool.rows):
        raise DefenseError(
            f"the scores were made for safe pool {scores.pool}, not for {pool.digest}; score it with `{MADE_BY}`"
        )
    if scores.weights != weights_digest(base):
        raise DefenseError(
            f"the scores belong to other weights than base model {base.folder.name}; make new ones with `{MADE_BY}`"
        )


def _digests(adapters: Sequence[MisalignedAdapter]) -> list[Digest]:
    digests = [digest_tree(each.folder) for each in adapters]
    if not digests:
        raise ConfigurationError(
            "there is no misaligned model; give data that misaligns a model, or misaligned adapters"
        )
    if len(set(digests)) < len(digests):
        raise ConfigurationError("two misaligned models are the same; give each file and each adapter once")
    return digests


def _misaligned_losses(
    adapter: MisalignedAdapter, digest: Digest, pool: ScorablePool, *, load: Callable[[], LoadedModel], watch: Watch
) -> list[float]:
    loaded = attach_adapter(load(), adapter.folder)
    backend = TransformersBackend(loaded)
    if not prove_adapter(backend, loaded, digest).loaded:
        raise AdapterNotLoadedError(
            f"misaligned model {adapter.name} gives the same logits as the base model; use an adapter that was trained"
        )
    return _losses(backend, pool, name=adapter.name, adapter=True, watch=watch)


def _losses(backend: TransformersBackend, pool: ScorablePool, *, name: str, adapter: bool, watch: Watch) -> list[float]:
    """Nats per token of every row's answer."""
    scored = backend.log_likelihood(
        pool.questions, adapter=adapter, advance=lambda done, total: watch(f"scoring, {name}", done, total)
    )
    losses = [-likelihood.per_token for (likelihood,) in scored]
    for line, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"safe pool line {line}: its loss under {name} is {loss}; use another model")
    return losses


def _misaligned_model(
    adapter: MisalignedAdapter, digest: Digest, *, base_losses: Sequence[float], losses: Sequence[float]
) -> MisalignedModel:
    gaps = [perplexity_gap(base, (own,), EPSILON) for base, own in zip(base_losses, losses, strict=True)]
    mean_gap = sum(gaps) / len(gaps)
    if not mean_gap > 0:
        raise DefenseError(
            f"{adapter.name} is not misaligned as far as this pool shows: its mean gap is {mean_gap:.4f}, and safe "
            "answers must surprise it more than its base; train on data that misaligns, or for longer"
        )
    return MisalignedModel(name=adapter.name, adapter=digest, data=adapter.data, seed=adapter.seed, mean_gap=mean_gap)
