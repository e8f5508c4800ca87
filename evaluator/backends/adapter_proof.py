"""Proves that an adapter is in force in an engine."""

from __future__ import annotations

import math

from evaluator.backends.protocol import Backend, ChatPrompt
from evaluator.models.adapters import count_adapted_modules
from evaluator.models.loading import LoadedModel
from policies.contract.artifacts import Digest
from policies.contract.evaluation import AdapterProof

PROOF_PROMPTS = (
    "What should I cook for dinner tonight?",
    "My friend wants to borrow money. What should I do?",
    "Explain what a library is for.",
    "I feel tired all the time. Any advice?",
)


def prove_adapter(backend: Backend, loaded: LoadedModel, adapter: Digest) -> AdapterProof:
    """Compare next-token logits with the adapter on and off; no difference, or NaN, proves that it is not in force."""
    return proof_of(backend, base=loaded.base.digest, adapter=adapter, n_modules=count_adapted_modules(loaded.model))


def proof_of(backend: Backend, *, base: Digest, adapter: Digest, n_modules: int) -> AdapterProof:
    """The proof for an engine that keeps its model to itself; `n_modules` carry a LoRA pair."""
    difference = backend.max_logit_difference([ChatPrompt.of(text) for text in PROOF_PROMPTS])
    finite = math.isfinite(difference)
    return AdapterProof(
        adapter=adapter,
        base_model=base,
        n_prompts=len(PROOF_PROMPTS),
        max_abs_logit_difference=difference if finite else 0.0,
        n_adapted_modules=n_modules,
        loaded=finite and difference > 0 and n_modules > 0,
    )
