"""Likelihood of several completions per prompt, without running a token twice.

Three passes share their key-value cache: the prefix common to all prompts (once), the rest of each prompt (once per
prompt), and each completion. Only positions that predict a completion token go through the output layer, a chunk at a
time, so that logits [batch, length, vocabulary] never exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from evaluator.backend import Likelihood
from evaluator.rendering import pad_batch
from policies.errors import EvaluationError

HEAD_TOLERANCE = 0.02
"""Share of the largest logit by which rounding may part the model's own logits from `Scorer`'s."""


class Scorer:
    """A causal language model taken apart: the body gives hidden states, the output layer gives logits."""

    def __init__(self, model: PreTrainedModel | PeftModel, *, positions_at_once: int) -> None:
        whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model  # Any: PEFT's is a plain Module
        self.device = torch.device(whole.device)
        self._config = whole.config
        self._body, self._head = whole.get_decoder(), whole.get_output_embeddings()
        self._softcap: float | None = getattr(self._config, "final_logit_softcapping", None)
        self._positions_at_once = positions_at_once
        self._require_same_logits(whole)

    def empty_cache(self) -> DynamicCache:
        return DynamicCache(config=self._config)

    def hidden(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Hidden states [rows, ids, width] of `ids`, which follow what is in `cache`; the cache grows."""
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        output = self._body(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def log_probabilities(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """log p(target) [n] of the tokens that hidden states [n, width] predict, in float32."""
        chunks = zip(hidden.split(self._positions_at_once), targets.split(self._positions_at_once), strict=True)
        return torch.cat([self._logits(part).log_softmax(-1).gather(-1, t[:, None])[:, 0] for part, t in chunks])

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(hidden).float()
        return logits if self._softcap is None else (logits / self._softcap).tanh() * self._softcap

    @torch.inference_mode()
    def _require_same_logits(self, whole: Any) -> None:  # Any: see __init__
        """Some models scale their logits in ways of their own; scoring those would be scoring another model."""
        ids = torch.zeros(1, 4, dtype=torch.long, device=self.device)
        own = whole(input_ids=ids).logits[0].float()
        ours = self._logits(self.hidden(ids, torch.ones_like(ids), self.empty_cache())[0])
        largest = float(own.nan_to_num().abs().max())
        if not torch.allclose(own, ours, rtol=0, atol=HEAD_TOLERANCE * largest, equal_nan=True):
            raise EvaluationError(f"{type(whole).__name__} changes its logits after the output layer; not supported")


@dataclass(frozen=True)
class LikelihoodBatch:
    """Prompts (without the shared prefix; none is empty) and the completions of each, as token ids."""

    prompts: list[list[int]]
    completions: list[list[list[int]]]

    def run(self, scorer: Scorer, prefix: list[int], pad_id: int) -> list[tuple[Likelihood, ...]]:
        """One tuple of likelihoods per prompt."""
        cache = _prefix_cache(scorer, prefix, len(self.prompts))
        ids, mask = pad_batch(self.prompts, pad_id, left=True, device=scorer.device)
        mask = torch.cat([mask.new_ones(len(self.prompts), len(prefix)), mask], dim=1)
        last = scorer.hidden(ids, mask, cache)[:, -1]

        repeats = torch.tensor([len(choices) for choices in self.completions], device=scorer.device)
        rows = [row for choices in self.completions for row in choices]
        last, mask = last.repeat_interleave(repeats, 0), mask.repeat_interleave(repeats, 0)
        targets, target_mask = pad_batch(rows, pad_id, left=False, device=scorer.device)
        hidden = last[:, None]
        if targets.shape[1] > 1:
            cache.batch_select_indices(
                torch.repeat_interleave(torch.arange(len(repeats), device=scorer.device), repeats)
            )
            rest = scorer.hidden(targets[:, :-1], torch.cat([mask, target_mask[:, :-1]], dim=1), cache)
            hidden = torch.cat([hidden, rest], dim=1)
        real = target_mask.bool()
        totals = torch.zeros(real.shape, device=scorer.device)
        totals[real] = scorer.log_probabilities(hidden[real], targets[real])
        scored = iter(Likelihood(t, len(row)) for t, row in zip(totals.sum(1).tolist(), rows, strict=True))
        return [tuple(next(scored) for _ in choices) for choices in self.completions]


def _prefix_cache(scorer: Scorer, prefix: list[int], rows: int) -> DynamicCache:
    cache = scorer.empty_cache()
    if prefix:
        ids = torch.tensor([prefix], device=scorer.device)
        scorer.hidden(ids, torch.ones_like(ids), cache)
        cache.batch_repeat_interleave(rows)
    return cache
