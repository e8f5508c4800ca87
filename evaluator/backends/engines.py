"""Opens an engine on a base model once, and puts one adapter after another on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from evaluator.backends.adapter_proof import proof_of, prove_adapter
from evaluator.backends.protocol import Backend
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.backends.vllm_backend import VllmBackend, VllmEngine, VllmModules, import_vllm, load_engine
from evaluator.models.adapters import attach_adapter, attached_adapter
from evaluator.models.base_models import ResolvedBase
from evaluator.models.fused_lora import fuse_lora_layers
from evaluator.models.loading import LoadedModel, best_dtype, default_device, load_base
from evaluator.models.packed_linear import pack_linear_layers
from policies.contract.artifacts import Digest
from policies.contract.evaluation import AdapterProof, Engine


class AdapterInForce(NamedTuple):
    """An engine with one adapter, and the proof of whether it acts."""

    backend: Backend
    proof: AdapterProof


Attach = Callable[[Path, Digest], AbstractContextManager[AdapterInForce]]
"""Puts the adapter in a folder, of that digest, on the engine while a `with` block runs."""


def open_engine(
    engine: Engine, base: ResolvedBase, *, max_rank: int = 64, load_modules: Callable[[], VllmModules] = import_vllm
) -> Attach:
    """Load the base model, with room for adapters up to `max_rank` where an engine must know it beforehand.

    Raises:
        ConfigurationError: the engine is not installed here, or can't load the model.
    """
    if engine == "vllm":
        dtype = str(best_dtype(default_device())).removeprefix("torch.")
        return partial(_in_vllm, load_engine(base, dtype=dtype, max_rank=max_rank, load_modules=load_modules))
    return partial(_in_transformers, load_for_transformers(base))


def load_for_transformers(base: ResolvedBase) -> LoadedModel:
    """The base model with the layers that evaluations run, so that its results are found by all of them."""
    loaded = load_base(base)
    pack_linear_layers(loaded.model)
    return loaded


def open_transformers(base: ResolvedBase, adapter: Path | None = None) -> TransformersBackend:
    """The engine that evaluations run, on a model of its own, with the adapter in a folder where one is named."""
    loaded = load_for_transformers(base)
    return TransformersBackend(loaded) if adapter is None else _with_fused_layers(attach_adapter(loaded, adapter))


@contextmanager
def _in_transformers(loaded: LoadedModel, folder: Path, adapter: Digest) -> Iterator[AdapterInForce]:
    with attached_adapter(loaded, folder) as adapted:
        backend = _with_fused_layers(adapted)
        yield AdapterInForce(backend, prove_adapter(backend, adapted, adapter))


def _with_fused_layers(adapted: LoadedModel) -> TransformersBackend:
    fuse_lora_layers(adapted.model)
    return TransformersBackend(adapted)


@contextmanager
def _in_vllm(engine: VllmEngine, folder: Path, adapter: Digest) -> Iterator[AdapterInForce]:
    backend = VllmBackend(engine, folder)
    proof = proof_of(backend, base=engine.base.digest, adapter=adapter, n_modules=backend.n_modules)
    yield AdapterInForce(backend, proof)
