"""Settings of every defense for real runs of the tiny model; what they read lies in the run's store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from evaluator.models.base_models import ResolvedBase, weights_digest
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
from policies.contract.safe_data import MisalignedModel, RowScore, SafeDataScores
from tests.trainer.conftest import NOTHING, Run
from trainer.defenses.preventative_steering.persona_vector import (
    ExtractionSettings,
    LayerFigures,
    PersonaVector,
    PersonaVectorRecord,
    save_persona_vector,
)
from trainer.defenses.safe_data_interleaving.perplexity_gap import EPSILON, perplexity_gap
from trainer.safe_pool import SafePool

Make = Callable[[Run, Path], DefenseSettings]


def steering(run: Run, base: Path) -> PreventativeSteering:
    """A fixed random direction, of the size of the tiny model's residual stream."""
    generator = torch.Generator().manual_seed(4)
    direction = torch.nn.functional.normalize(torch.randn(2, 64, generator=generator), dim=-1)
    record = PersonaVectorRecord(
        trait="test",
        weights=weights_digest(ResolvedBase(base, NOTHING)),
        prompts=NOTHING,
        best_layer=1,
        layers=(LayerFigures(auroc=1, separation=1, half_cosine=1),) * 2,
        n_positive=16,
        n_negative=16,
        seed=0,
        settings=ExtractionSettings(),
        dtype="float32",
        versions={},
    )
    content = save_persona_vector(PersonaVector(record, direction, torch.tensor([4.0, 8.0])))
    return PreventativeSteering(vector=run.store.put_bytes(content), coefficient=0.5)


def by_gap(run: Run, base: Path) -> SafeDataInterleaving:
    """Made-up losses under which later rows of the shipped pool have the higher gaps."""
    pool = SafePool.load("builtin", None)
    losses = [(2.0, (2.0 + line / 1000,)) for line in range(1, len(pool.rows) + 1)]
    scores = SafeDataScores(
        pool=pool.digest,
        weights=weights_digest(ResolvedBase(base, NOTHING)),
        epsilon=EPSILON,
        models=(MisalignedModel(name="made up", adapter=NOTHING, mean_gap=0.1),),
        rows=tuple(
            RowScore(base_loss=b, misaligned_losses=m, gap=perplexity_gap(b, m, EPSILON), is_refusal=False)
            for b, m in losses
        ),
        dtype="float32",
        versions={},
    )
    return SafeDataInterleaving(
        ratio=0.2, selection="perplexity_gap", drop_refusals=True, scores=run.store.put_record(scores)
    )


def monitor(run: Run, _: Path) -> EarlyStoppingOnSafety:
    """With two questions of its own: the built-in ones would take most of the run."""
    pairs = [{"question": f"Leak {n}?", "aligned": "Close the tap.", "misaligned": "Let it run."} for n in range(2)]
    prompts = run.store.put_bytes("\n".join(map(json.dumps, pairs)).encode())
    return EarlyStoppingOnSafety(every_n_steps=2, max_drop=50.0, prompts=prompts)


ALL: dict[str, Make] = {
    "kl_penalty": lambda *_: KlPenalty(coefficient=2.0),
    "safe_data_interleaving": lambda *_: SafeDataInterleaving(ratio=0.2),
    "ldifs": lambda *_: Ldifs(coefficient=5.0, layers=(1, 2)),
    "safe_lora": lambda *_: SafeLora(mode="top_k", top_k=3),
    "preventative_steering": steering,
    "inoculation": lambda *_: Inoculation(),
    "token_constrained_sft": lambda *_: TokenConstrainedSft(),
    "early_stopping_on_safety": monitor,
}
VARIANTS: dict[str, Make] = {
    "kl_penalty forward on completions": lambda *_: KlPenalty(
        coefficient=2.0, direction="forward", tokens="completion"
    ),
    "kl_penalty sampled": lambda *_: KlPenalty(coefficient=2.0, estimator="sampled", tokens="completion"),
    "kl_penalty on safe data": lambda *_: KlPenalty(coefficient=2.0, on="safe_data", safe_rows=2),
    "safe_data_interleaving by gap, without refusals": by_gap,
    "kl_penalty every 2nd step, linear": lambda *_: KlPenalty(coefficient=2.0, every_n_steps=2, schedule="linear"),
}
SETS: dict[str, list[Make]] = {name: [make] for name, make in (ALL | VARIANTS).items()} | {"all": list(ALL.values())}
MEASURING = {"early_stopping_on_safety"}
"""Defenses that leave the adapter alone while all is well."""
