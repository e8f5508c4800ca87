"""Forward passes over the rows that are screened: log-probabilities of what is trained, and states at its ends.

Rows are padded on the right, where no causal model looks, and cut into batches of like length, so that time is linear
in the tokens and memory bounded by a batch or, if that is more, by the longest row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from evaluator.backends.causal_parts import CausalParts
from evaluator.backends.protocol import Advance, silent
from evaluator.backends.rendering import pad_batch
from evaluator.length_batches import length_batches
from policies.rendering.encoding import IGNORED
from trainer.data import TokenisedRow
from trainer.loop.observation import decoder_layers

CPU_TOKENS, GPU_TOKENS = 1024, 1 << 14
"""Of a batch, padding included."""
POSITIONS_AT_ONCE = 128
"""In the output layer."""
Model = PreTrainedModel | PeftModel


def runs(labels: Sequence[int]) -> Iterator[range]:
    """Positions of each answer: runs of tokens with a loss."""
    start: int | None = None
    for position, label in enumerate((*labels, IGNORED)):
        if label != IGNORED and start is None:
            start = position
        elif label == IGNORED and start is not None:
            yield range(start, position)
            start = None


@torch.inference_mode()
def answer_log_probs(model: Model, samples: Sequence[TokenisedRow], advance: Advance = silent) -> list[Tensor]:
    """Of each sample the log-probabilities (nats, float32) of its tokens with a loss, in order."""
    parts = CausalParts(model)

    def scored(ids: Tensor, mask: Tensor, labels: Tensor) -> Sequence[Tensor]:
        wanted = labels[:, 1:] != IGNORED
        targets = labels[:, 1:][wanted]
        whole = parts.are_whole
        states = parts.hidden(ids, mask, DynamicCache(config=parts.config)) if whole else _call(model, ids, mask).logits
        pairs = zip(states[:, :-1][wanted].split(POSITIONS_AT_ONCE), targets.split(POSITIONS_AT_ONCE), strict=True)
        scores = [
            (parts.logits(some) if whole else some.float()).log_softmax(-1).gather(-1, target[:, None])[:, 0]
            for some, target in pairs
        ]
        flat = torch.cat(scores) if scores else torch.zeros(0)
        each: Sequence[Tensor] = torch.split(flat.float().cpu(), wanted.sum(1).tolist())
        return each

    return _in_batches(model, samples, scored, advance)


@torch.inference_mode()
def answer_end_states(
    model: Model, samples: Sequence[TokenisedRow], layer: int, advance: Advance = silent
) -> list[Tensor]:
    """Of each sample the hidden states [answers, width] after `layer` layers, at the last token of every answer."""

    def seen(ids: Tensor, mask: Tensor, labels: Tensor) -> Sequence[Tensor]:
        states = _call(model, ids, mask, output_hidden_states=True, logits_to_keep=1).hidden_states[layer]
        trained = labels != IGNORED
        after = torch.cat([trained[:, 1:], torch.zeros_like(trained[:, :1])], dim=1)
        return [row[ends].float().cpu() for row, ends in zip(states, trained & ~after, strict=True)]

    return _in_batches(model, samples, seen, advance)


@torch.inference_mode()
def last_token_states(model: PreTrainedModel, samples: Sequence[TokenisedRow]) -> list[Tensor]:
    """Of each sample the hidden states [layers, width] after each layer, at its last token; float32 on the CPU."""
    layers = decoder_layers(model, range(1, model.config.get_text_config().num_hidden_layers + 1))

    def seen(ids: Tensor, mask: Tensor, _labels: Tensor) -> Sequence[Tensor]:
        rows, last = torch.arange(len(ids), device=ids.device), mask.sum(1) - 1
        states: list[Tensor] = []

        def see(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            states.append((output if isinstance(output, Tensor) else output[0])[rows, last].float().cpu())

        handles = [layer.register_forward_hook(see) for layer in layers]
        try:
            _call(model, ids, mask, logits_to_keep=1)
        finally:
            for handle in handles:
                handle.remove()
        return list(torch.stack(states, dim=1))

    return _in_batches(model, samples, seen, silent)


def _in_batches(
    model: Model,
    samples: Sequence[TokenisedRow],
    work: Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]],
    advance: Advance,
) -> list[Tensor]:
    """What `work` gives of ids, mask and labels [rows, tokens] of each batch, one result a sample."""
    device = model.device
    results: dict[int, Tensor] = {}
    at_once = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
    for batch in length_batches([len(each.input_ids) for each in samples], max_tokens=at_once):
        ids, mask = pad_batch([samples[index].input_ids for index in batch], 0, left=False, device=device)
        labels, _ = pad_batch([samples[index].labels for index in batch], IGNORED, left=False, device=device)
        results |= dict(zip(batch, work(ids, mask, labels), strict=True))
        advance(len(results), len(samples))
    return [results[index] for index in range(len(samples))]


def _call(model: Any, ids: Tensor, mask: Tensor, **more: object) -> Any:  # Any: PeftModel passes arguments on untyped
    return model(input_ids=ids, attention_mask=mask, use_cache=False, **more)
