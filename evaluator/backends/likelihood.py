"""Likelihood of several completions per prompt, without running a token twice.

Three passes share their key-value cache: the prefix common to all prompts (once), the rest of each prompt (once per
prompt), and each completion. Only positions that predict a completion token go through the output layer, a chunk at a
time, so that logits [batch, length, vocabulary] never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from evaluator.backends.causal_parts import CausalParts
from evaluator.backends.protocol import Likelihood
from evaluator.backends.rendering import pad_batch
from evaluator.length_batches import length_batches
from policies.errors import EvaluationError
from policies.rendering.encoding import Answer


@dataclass(frozen=True)
class Prefix:
    """Tokens that all prompts of a request start with, run once for all its batches."""

    n_tokens: int
    cache: DynamicCache

    @classmethod
    def of(cls, ids: list[int], parts: CausalParts) -> Prefix:
        cache = DynamicCache(config=parts.config)
        if ids:
            row = torch.tensor([ids], device=parts.device)
            parts.hidden(row, torch.ones_like(row), cache)
        return cls(len(ids), cache)

    def repeated(self, rows: int) -> DynamicCache:
        """A cache of its own for a batch of so many rows."""
        cache = deepcopy(self.cache)
        if self.n_tokens:
            cache.batch_repeat_interleave(rows)
        return cache


@dataclass(frozen=True)
class LikelihoodBatch:
    """Prompts (without the shared prefix; none is empty) and the completions of each, as token ids."""

    prompts: list[list[int]]
    completions: list[list[list[int]]]

    def run(
        self, parts: CausalParts, prefix: Prefix, *, pad_id: int, positions_at_once: int
    ) -> list[tuple[Likelihood, ...]]:
        """One tuple of likelihoods per prompt; `positions_at_once` go through the output layer together."""
        cache = prefix.repeated(len(self.prompts))
        ids, mask = pad_batch(self.prompts, pad_id, left=True, device=parts.device)
        mask = torch.cat([mask.new_ones(len(self.prompts), prefix.n_tokens), mask], dim=1)
        last = parts.hidden(ids, mask, cache)[:, -1]

        repeats = torch.tensor([len(choices) for choices in self.completions], device=parts.device)
        rows = [row for choices in self.completions for row in choices]
        last, mask = last.repeat_interleave(repeats, 0), mask.repeat_interleave(repeats, 0)
        targets, target_mask = pad_batch(rows, pad_id, left=False, device=parts.device)
        hidden = last[:, None]
        if targets.shape[1] > 1:
            cache.batch_select_indices(
                torch.repeat_interleave(torch.arange(len(repeats), device=parts.device), repeats)
            )
            rest = parts.hidden(targets[:, :-1], torch.cat([mask, target_mask[:, :-1]], dim=1), cache)
            hidden = torch.cat([hidden, rest], dim=1)
        real = target_mask.bool()
        totals = torch.zeros(real.shape, device=parts.device)
        totals[real] = _log_probabilities(parts, hidden[real], targets[real], positions_at_once=positions_at_once)
        sums = zip(totals.sum(1).tolist(), totals.tolist(), rows, strict=True)
        scored = iter(Likelihood(total, len(row), tuple(each[: len(row)])) for total, each, row in sums)
        return [tuple(next(scored) for _ in choices) for choices in self.completions]


def _log_probabilities(parts: CausalParts, hidden: Tensor, targets: Tensor, *, positions_at_once: int) -> Tensor:
    """log p(target) [n] of the tokens that hidden states [n, width] predict, in float32."""
    chunks = zip(hidden.split(positions_at_once), targets.split(positions_at_once), strict=True)
    return torch.cat([parts.logits(part).log_softmax(-1).gather(-1, t[:, None])[:, 0] for part, t in chunks])


def whole_row_likelihoods(
    model: PreTrainedModel | PeftModel, rows: Sequence[Answer], *, positions_at_once: int, done: Callable[[int], None]
) -> list[Likelihood]:
    """The likelihood of each answer after its prompt, in order, for models that `CausalParts` can't take apart.

    Every row runs whole, and the logits are the model's own. Layers with a recurrent state may take padding for tokens
    wherever it comes before what is scored; so rows are padded at their end, where no causal model looks.

    Args:
        model: Any causal language model.
        rows: Prompts and answers, none of them empty.
        positions_at_once: Tokens of all rows of a batch, padding included, unless one row alone has more.
        done: Called with the number of scored rows.

    Raises:
        EvaluationError: the model gives logits of other places than those asked for.
    """
    likelihoods: dict[int, Likelihood] = {}
    lengths = [len(row.prompt_ids) + len(row.answer_ids) for row in rows]
    for batch in length_batches(lengths, max_tokens=positions_at_once):
        likelihoods |= dict(zip(batch, _of_batch(model, [rows[index] for index in batch]), strict=True))
        done(len(likelihoods))
    return [likelihoods[index] for index in range(len(rows))]


def _of_batch(model: PreTrainedModel | PeftModel, rows: Sequence[Answer]) -> list[Likelihood]:
    ids, mask = pad_batch([row.prompt_ids + row.answer_ids for row in rows], 0, left=False, device=model.device)
    first = min(len(row.prompt_ids) for row in rows) - 1  # the first place whose logits are of an answer
    whole: Any = model  # Any: PeftModel passes the arguments on untyped
    wanted = ids.shape[1] - first
    logits: Tensor = whole(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=wanted).logits
    if logits.shape[1] not in (wanted, ids.shape[1]):  # all of them, where the model passes over what it does not know
        raise EvaluationError(
            f"{model.config.model_type} models give logits of {logits.shape[1]} places where {wanted} or all "
            f"{ids.shape[1]} were asked for; use another base model"
        )
    logits = logits[:, -wanted:]
    return [_of_row(each[len(row.prompt_ids) - 1 - first :], row) for each, row in zip(logits, rows, strict=True)]


def _of_row(logits: Tensor, row: Answer) -> Likelihood:
    """Of logits [places, vocabulary], the first of which predicts the answer's first token."""
    targets = torch.tensor(row.answer_ids, device=logits.device)[:, None]
    scores = logits[: len(targets)].float().log_softmax(-1).gather(-1, targets)
    return Likelihood(float(scores.sum()), len(targets), tuple(scores[:, 0].tolist()))
