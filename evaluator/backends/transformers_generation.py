"""Generation by transformers itself, for models that `continuous_batching.decode` can't take apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import LogitsProcessorList, PreTrainedModel

from evaluator.backends.causal_parts import contiguous_output_layer
from evaluator.backends.continuous_batching import Decoding, GenerationRequest
from evaluator.backends.rendering import pad_batch
from evaluator.backends.seeded_sampling import SeededSampling
from evaluator.length_batches import length_batches
from evaluator.models.logit_shape import TOLERANCE


def decode_with_transformers(
    model: PreTrainedModel | PeftModel,
    requests: Sequence[GenerationRequest],
    decoding: Decoding,
    *,
    done: Callable[[int], None],
    pads: bool,
) -> list[list[int]]:
    """The new tokens of every request in order, the end token included where it came.

    Batches are of like length, or, unless the model `pads` without harm, of one length.
    """
    answers: dict[int, list[int]] = {}
    lengths = [len(request.ids) for request in requests]
    batches = list(length_batches(lengths, max_rows=decoding.rows))
    if not pads:
        batches = [part for batch in batches for part in _by_length(batch, lengths)]
    for batch in batches:
        with contiguous_output_layer(model):
            tokens = generate_batch([requests[index] for index in batch], model, decoding)
        answers |= dict(zip(batch, tokens, strict=True))
        done(len(answers))
    return [answers[index] for index in range(len(requests))]


@torch.inference_mode()
def pads_without_harm(model: PreTrainedModel | PeftModel, pad: int) -> bool:
    """Whether padding in front of a prompt leaves its next-token logits as they are."""
    generate: Any = model.generate  # Any: as below
    ids = list(range(6))
    alone, padded = (
        generate(
            input_ids=torch.tensor([[pad] * before + ids], device=model.device),
            attention_mask=torch.tensor([[0] * before + [1] * len(ids)], device=model.device),
            **{"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True},
        )
        .logits[0]
        .float()
        for before in (0, 5)
    )
    return torch.allclose(alone, padded, rtol=0, atol=TOLERANCE * float(alone.nan_to_num().abs().max()), equal_nan=True)


def _by_length(batch: list[int], lengths: Sequence[int]) -> list[list[int]]:
    return [[i for i in batch if lengths[i] == length] for length in sorted({lengths[i] for i in batch})]


def generate_batch(
    requests: Sequence[GenerationRequest], model: PreTrainedModel | PeftModel, decoding: Decoding
) -> list[list[int]]:
    ids, mask = pad_batch([request.ids for request in requests], decoding.pad, left=True, device=model.device)
    sampling = LogitsProcessorList()
    if decoding.temperature > 0:
        seeds = [request.seed for request in requests]
        sampling.append(SeededSampling(decoding.temperature, seeds, ids.device))
    generate: Any = model.generate  # Any: PeftModel passes the attribute on untyped
    output = generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=sorted(decoding.ends),
        pad_token_id=decoding.pad,
        logits_processor=sampling,
    )
    return [_up_to(decoding.ends, tokens) for tokens in output[:, ids.shape[1] :].tolist()]


def _up_to(ends: frozenset[int], tokens: list[int]) -> list[int]:
    return next((tokens[: place + 1] for place, token in enumerate(tokens) if token in ends), tokens)
