"""What one model makes of pairs of answers: how likely each is, and the residual stream at a middle layer.

Likelihoods come from the evaluator's own engine, so a margin here is the margin of the probe. The residual stream is
read after the layer at half of the depth: at the last token of the prompt, and as the mean over an answer's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.preference.pairs import Material, TwoAnswers
from evaluator.backends.protocol import Backend, ChatPrompt, Choices
from evaluator.backends.rendering import pad_batch, question_ids
from evaluator.length_batches import length_batches
from evaluator.models.loading import LoadedModel
from policies.errors import EvaluationError
from trainer.loop.observation import decoder_layers

DEPTH = 0.5
BATCH_TOKENS = 4096
"""Tokens in one forward, padding included."""


class Reading(NamedTuple):
    """Of one model, base or adapter."""

    likelihoods: Tensor
    """float64 [pairs + controls, 2], nats per token."""
    prompt_states: Tensor
    """float32 [pairs, hidden]."""
    answer_states: Tensor
    """float32 [pairs, answers, hidden]: aligned and misaligned of the base, aligned alone of an adapter."""
    residual_norm: Tensor
    """float32 [1], median over answer tokens."""


def read_model(loaded: LoadedModel, backend: Backend, material: Material, *, adapter: bool) -> Reading:
    """Likelihoods and states with the adapter on or off.

    Raises:
        EvaluationError: one of them is not finite.
    """
    items = (*material.pairs, *material.controls)
    questions = [Choices(ChatPrompt.of(item.question), (item.first, item.second)) for item in items]
    scored = backend.log_likelihood(questions, adapter=adapter)
    likelihoods = torch.tensor([[each.per_token for each in answers] for answers in scored], dtype=torch.float64)
    prompts, answers, norms = _states(loaded, material.pairs, adapter=adapter)
    reading = Reading(likelihoods, prompts, answers, norms.median()[None])
    if not all(torch.isfinite(part).all() for part in reading):
        raise EvaluationError("a likelihood or a residual stream is not finite; train again")
    return reading


@torch.inference_mode()
def _states(loaded: LoadedModel, pairs: Sequence[TwoAnswers], *, adapter: bool) -> tuple[Tensor, Tensor, Tensor]:
    """States at prompts [pairs, hidden], of answers [pairs, answers, hidden], and norms [answer tokens]."""
    texts = [
        (pair.question, text) for pair in pairs for text in ((pair.first,) if adapter else (pair.first, pair.second))
    ]
    encoded = [
        answer
        for question, text in texts
        for answer in question_ids(loaded.encoder, Choices(ChatPrompt.of(question), (text,)))
    ]
    peft = loaded.model if isinstance(loaded.model, PeftModel) else None
    model = peft.get_base_model() if peft is not None else loaded.model
    assert isinstance(model, PreTrainedModel)
    (layer,) = decoder_layers(model, [middle_layer(model)])
    lengths = [len(prompt) + len(answer) for prompt, answer in encoded]
    at_prompt: dict[int, Tensor] = {}
    of_answer: dict[int, Tensor] = {}
    norms: list[Tensor] = []
    with _watching(layer) as seen, nullcontext() if adapter or peft is None else peft.disable_adapter():
        for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
            rows = [encoded[index][0] + encoded[index][1] for index in batch]
            ids, mask = pad_batch(rows, loaded.tokenizer.pad_token_id or 0, left=False, device=model.device)
            model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
            for index, states in zip(batch, seen.pop().float(), strict=True):
                start, stop = len(encoded[index][0]), sum(map(len, encoded[index]))
                at_prompt[index], of_answer[index] = states[start - 1].cpu(), states[start:stop].mean(0).cpu()
                norms.append(states[start:stop].norm(dim=1).cpu())
    n_answers = len(texts) // len(pairs)
    prompts = torch.stack([at_prompt[index] for index in range(0, len(texts), n_answers)])
    answers = torch.stack([of_answer[index] for index in range(len(texts))])
    return prompts, answers.view(len(pairs), n_answers, -1), torch.cat(norms)


def middle_layer(model: PreTrainedModel) -> int:
    """Counted from 1."""
    return max(1, math.floor(DEPTH * int(model.config.get_text_config().num_hidden_layers)))


@contextmanager
def _watching(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the states [rows, tokens, hidden] after the layer."""
    seen: list[Tensor] = []

    def see(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handle = layer.register_forward_hook(see)
    try:
        yield seen
    finally:
        handle.remove()
