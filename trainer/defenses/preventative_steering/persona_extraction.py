"""Makes a persona vector: the base model answers under contrastive system prompts, and its residual streams are read.

Chen et al. 2025 (arXiv 2507.21509) §2. Every question is answered under every system prompt, and activations are read
in the same context as the answer was given in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evaluator.backends.protocol import ChatPrompt, Choices, GenerationSettings, Message
from evaluator.backends.rendering import pad_batch, question_ids
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.length_batches import length_batches
from evaluator.models.base_models import weights_digest
from evaluator.models.loading import LoadedModel
from trainer.defenses.preventative_steering.persona_direction import AnswerActivations, find_direction
from trainer.defenses.preventative_steering.persona_prompts import PersonaPrompts
from trainer.defenses.preventative_steering.persona_vector import ExtractionSettings, PersonaVector, PersonaVectorRecord
from trainer.loop.observation import decoder_layers

BATCH_TOKENS = 4096
"""Tokens in one forward, padding included."""

Watch = Callable[[str, int, int], None]
"""Stage, answers done, answers in all."""


class Asked(NamedTuple):
    """A question under a system prompt."""

    prompt: ChatPrompt
    question: int
    is_positive: bool


class TokenisedAnswer(NamedTuple):
    prompt_ids: list[int]
    answer_ids: list[int]
    asked: Asked


def extract(
    loaded: LoadedModel, prompts: PersonaPrompts, *, settings: ExtractionSettings, seed: int, watch: Watch
) -> PersonaVector:
    """The base model's vector of the prompts' trait.

    Raises:
        DefenseError: there are too few answers, or the direction does not separate.
    """
    answers = answer(loaded, prompts, settings=settings, seed=seed, watch=watch)
    activations = read_activations(loaded, answers, watch=watch)
    direction = find_direction(activations, settings)
    n_positive = int(activations.is_positive.sum())
    record = PersonaVectorRecord(
        trait=prompts.trait,
        weights=weights_digest(loaded.base),
        prompts=prompts.digest,
        best_layer=direction.best_layer,
        layers=direction.layers,
        n_positive=n_positive,
        n_negative=len(answers) - n_positive,
        seed=seed,
        settings=settings,
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        versions={name: version(name) for name in ("torch", "transformers")},
    )
    return PersonaVector(record, direction.unit, direction.residual_norm)


def answer(
    loaded: LoadedModel, prompts: PersonaPrompts, *, settings: ExtractionSettings, seed: int, watch: Watch
) -> list[TokenisedAnswer]:
    """The base model's answers that have text."""
    asked = [
        Asked(ChatPrompt((Message("system", system), Message("user", question))), index, is_positive)
        for index, question in enumerate(prompts.questions)
        for is_positive, systems in ((True, prompts.positive), (False, prompts.negative))
        for system in systems
    ]
    generated = TransformersBackend(loaded).generate(
        [each.prompt for each in asked],
        GenerationSettings(settings.max_new_tokens, settings.temperature, seed),
        adapter=False,
        advance=lambda done, total: watch("answers", done, total),
    )
    return [
        TokenisedAnswer(*encoded, each)
        for each, text in zip(asked, generated, strict=True)
        if text.text.strip()
        for encoded in question_ids(loaded.encoder, Choices(each.prompt, (text.text,)))
    ]


@torch.inference_mode()
def read_activations(loaded: LoadedModel, answers: Sequence[TokenisedAnswer], *, watch: Watch) -> AnswerActivations:
    """Residual streams after every decoder layer at the tokens of the answers."""
    model = loaded.model
    assert isinstance(model, PreTrainedModel)
    means: dict[int, Tensor] = {}
    norms: list[Tensor] = []
    pad = loaded.tokenizer.pad_token_id or 0
    lengths = [len(each.prompt_ids) + len(each.answer_ids) for each in answers]
    for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
        rows = [answers[index].prompt_ids + answers[index].answer_ids for index in batch]
        ids, mask = pad_batch(rows, pad, left=False, device=model.device)
        is_answer = mask.bool()
        for row, index in enumerate(batch):
            is_answer[row, : len(answers[index].prompt_ids)] = False
        with _reading(model, is_answer) as layers:
            model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        stacked = torch.stack([mean for mean, _ in layers], dim=1)
        means |= dict(zip(batch, stacked, strict=True))
        norms.append(torch.stack([norm for _, norm in layers], dim=1))
        watch("activations", len(means), len(answers))
    return AnswerActivations(
        means=torch.stack([means[index] for index in range(len(answers))]),
        norms=torch.cat(norms),
        is_positive=torch.tensor([each.asked.is_positive for each in answers]),
        question=torch.tensor([each.asked.question for each in answers]),
    )


@contextmanager
def _reading(model: PreTrainedModel, is_answer: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects, layer by layer, the mean [rows, hidden] and the norms [tokens] of the states at `is_answer`."""
    read: list[tuple[Tensor, Tensor]] = []

    def see(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states = (output if isinstance(output, Tensor) else output[0]).float()
        weights = is_answer[:, :, None] / is_answer.sum(1)[:, None, None]
        read.append(((states * weights).sum(1).cpu(), states[is_answer].norm(dim=1).cpu()))

    n_layers = model.config.get_text_config().num_hidden_layers
    handles = [module.register_forward_hook(see) for module in decoder_layers(model, range(1, n_layers + 1))]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()
