"""Sampling whose draws depend on the seed and the prompt, never on the batch that a prompt happens to be in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class SeededSampling(LogitsProcessor):
    """Adds Gumbel noise from one generator per row, so that greedy decoding samples from softmax(logits / T).

    The largest of `logits / T + Gumbel noise` is a draw from the softmax (Gumbel-max). Adapter and base get the same
    noise for a prompt, so their paired difference is less noisy than with independent draws.
    """

    def __init__(self, temperature: float, seeds: Sequence[tuple[int, int]]) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed * 1_000_003 + position) for seed, position in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self._generators])
        gumbel = -noise.clamp_min(torch.finfo(torch.float32).tiny).log()
        return scores.float() / self._temperature + gumbel.to(scores.device)
