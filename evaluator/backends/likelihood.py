"""Likelihood of several completions per prompt, without running a token twice.

Three passes share their key-value cache: the prefix common to all prompts (once), the rest of each prompt (once per
prompt), and each completion. Only completion tokens, and the last token of a prompt, go through the output layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from evaluator.backend import Likelihood
from evaluator.rendering import pad_batch


@dataclass(frozen=True)
class LikelihoodBatch:
    """Prompts (without the shared prefix; none is empty) and the completions of each, as token ids."""

    prompts: list[list[int]]
    completions: list[list[list[int]]]

    def run(self, model: PreTrainedModel | PeftModel, prefix: list[int], pad_id: int) -> list[tuple[Likelihood, ...]]:
        """One tuple of likelihoods per prompt."""
        device = model.device
        cache = _prefix_cache(model, prefix, len(self.prompts))
        ids, mask = pad_batch(self.prompts, pad_id, left=True, device=device)
        mask = torch.cat([mask.new_ones(len(self.prompts), len(prefix)), mask], dim=1)
        first = _forward(model, ids, mask, cache, keep=1)[:, -1]

        repeats = torch.tensor([len(choices) for choices in self.completions], device=device)
        rows = [row for choices in self.completions for row in choices]
        cache.batch_select_indices(torch.repeat_interleave(torch.arange(len(repeats), device=device), repeats))
        first, mask = first.repeat_interleave(repeats, 0), mask.repeat_interleave(repeats, 0)
        targets, target_mask = pad_batch(rows, pad_id, left=False, device=device)
        totals = _token_log_probabilities(first[:, None], targets[:, :1])[:, 0]
        if targets.shape[1] > 1:
            logits = _forward(model, targets[:, :-1], torch.cat([mask, target_mask[:, :-1]], dim=1), cache, keep=0)
            rest = _token_log_probabilities(logits, targets[:, 1:])
            totals = totals + rest.masked_fill(target_mask[:, 1:] == 0, 0.0).sum(1)
        scored = iter(Likelihood(total, len(row)) for total, row in zip(totals.tolist(), rows, strict=True))
        return [tuple(next(scored) for _ in choices) for choices in self.completions]


def _prefix_cache(model: PreTrainedModel | PeftModel, prefix: list[int], rows: int) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    if prefix:
        ids = torch.tensor([prefix], device=model.device)
        _forward(model, ids, torch.ones_like(ids), cache, keep=1)
        cache.batch_repeat_interleave(rows)
    return cache


def _forward(
    model: PreTrainedModel | PeftModel, ids: Tensor, mask: Tensor, cache: DynamicCache, *, keep: int
) -> Tensor:
    """Logits [rows, keep or all, vocabulary] of `ids`, which follow what is in `cache`; the cache grows."""
    positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    logits: Tensor = output.logits
    return logits


def _token_log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """log p(target) [rows, tokens], in float32, one row at a time so that only one row's logits are copied."""
    return torch.stack(
        [
            row.float().gather(-1, target[:, None])[:, 0] - row.float().logsumexp(-1)
            for row, target in zip(logits, targets, strict=True)
        ]
    )
