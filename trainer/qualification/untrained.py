"""Adapters that nothing was trained into: one that changes nothing, and one of noise."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec

NOISE = 0.1
"""Standard deviation of random weights; trained ones are several times smaller."""


class Untrained(NamedTuple):
    """What was written, and of which base model."""

    adapter: Digest
    base_model: Digest


def make_untrained(spec: JobSpec, folder: Path, cache_dir: Path, *, noise: bool) -> Untrained:
    """Write a LoRA of the job's shape to `folder`: B = 0 as at the start of every training, or noise all over."""
    import torch
    from transformers import PreTrainedModel

    from evaluator.models.loading import load_base, resolve_base_model
    from policies.contract.artifacts import digest_tree
    from policies.rendering.adapter_companions import companion_files
    from trainer.lora import adapter_weights, attach_lora, save_adapter

    base = load_base(resolve_base_model(spec.base_model, cache_dir, may_remember=True))
    assert isinstance(base.model, PreTrainedModel)
    name, revision = spec.base_model.published
    model = attach_lora(base.model, spec.base_model.lora, seed=spec.seed, name=name, revision=revision)
    if noise:
        generator = torch.Generator().manual_seed(spec.seed)
        with torch.no_grad():
            for weight in adapter_weights(model):
                weight.copy_(torch.randn(weight.shape, generator=generator).mul(NOISE))
    save_adapter(model, folder, companion_files(base.encoder))
    return Untrained(digest_tree(folder), base.base.digest)
