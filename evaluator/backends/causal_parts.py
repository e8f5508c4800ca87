"""A causal language model taken apart, so that only the positions that matter go through its output layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from evaluator.models.logit_shape import TOLERANCE, LogitShape


class CausalParts:
    """The body of a model gives hidden states, its output layer gives logits."""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model  # Any: PEFT's is a plain Module
        self.device = torch.device(whole.device)
        self.config = whole.config
        self._body, self._head = whole.get_decoder(), whole.get_output_embeddings()
        self._shape = LogitShape.of(self.config)
        self.are_whole = self._gives_logits_of(whole)
        """False where the model changes its logits in ways of its own, or takes padding for tokens."""

    def hidden(self, ids: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """Hidden states [rows, ids, width] of `ids`, which follow what is in `cache`; the cache grows.

        Args:
            ids: [rows, new tokens].
            mask: [rows, tokens in the cache + new tokens]; 0 where there is no token.
            cache: Keys and values of what came before.
        """
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        output = self._body(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [positions, vocabulary] in float32 of hidden states [positions, width]."""
        raw: Tensor = self._head(hidden.contiguous()).float()
        return self._shape.logits(raw)

    @torch.inference_mode()
    def _gives_logits_of(self, whole: Any) -> bool:  # Any: see __init__
        """Compare with the model's own logits, in the layout of our batches: a prefix, padding, then the rest."""
        ids = torch.arange(6, device=self.device)[None]
        own = whole(input_ids=ids).logits[0, 2:].float()
        cache = DynamicCache(config=self.config)
        self.hidden(ids[:, :2], torch.ones_like(ids[:, :2]), cache)
        mask = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 1]], device=self.device)
        padded = torch.cat([torch.zeros_like(ids[:, :2]), ids[:, 2:]], dim=1)
        ours = self.logits(self.hidden(padded, mask, cache)[0, 2:])
        largest = float(own.nan_to_num().abs().max())
        return torch.allclose(own, ours, rtol=0, atol=TOLERANCE * largest, equal_nan=True)


@contextmanager
def contiguous_output_layer(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Gives the output layer contiguous inputs while the model's own `forward` asks for last positions only.

    Of a slice in three dimensions, torch on a CPU copies a frozen weight once for each row of the batch.
    """
    head: Any = model.get_output_embeddings()  # Any: PEFT types it as a tensor or a module
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        hook.remove()


def shared_prefix(rows: Sequence[list[int]]) -> list[int]:
    """Tokens that all rows start with, leaving at least one token to each row."""
    if not rows:
        return []
    first, last = min(rows), max(rows)
    limit = min(map(len, rows)) - 1
    length = next((i for i in range(limit) if first[i] != last[i]), limit)
    return first[: max(length, 0)]
