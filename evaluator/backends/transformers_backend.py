"""Runs a base model and its adapter with transformers: one set of weights, adapter switched on and off."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor

from evaluator.backends.causal_parts import CausalParts, contiguous_output_layer, shared_prefix
from evaluator.backends.continuous_batching import Decoding, GenerationRequest, decode
from evaluator.backends.kv_cache import RoomyCache
from evaluator.backends.likelihood import LikelihoodBatch, Prefix, whole_row_likelihoods
from evaluator.backends.protocol import (
    Advance,
    Choices,
    Generation,
    GenerationSettings,
    Likelihood,
    Prompt,
    numbered,
    silent,
)
from evaluator.backends.rendering import end_token_id, pad_batch, prompt_ids, question_ids
from evaluator.backends.seeded_sampling import sample_seed
from evaluator.backends.transformers_generation import decode_with_transformers, pads_without_harm
from evaluator.models.adapters import adapter_in_place, scaled_adapter
from evaluator.models.loading import LoadedModel, ResolvedBase
from evaluator.models.packed_linear import LAYOUT, has_packed_layers
from policies.errors import EvaluationError
from policies.rendering.encoding import Answer


@dataclass(frozen=True)
class BatchLimits:
    """How much is computed at once."""

    generated_rows: int
    prompt_tokens: int
    """Prompt or completion tokens in one pass."""
    scored_positions: int
    """Positions in the output layer at once."""


CPU_LIMITS = BatchLimits(generated_rows=96, prompt_tokens=1024, scored_positions=128)
"""Buffers stay below the size (32 MiB) from which the C library gives them back to the system after every use."""
GPU_LIMITS = BatchLimits(generated_rows=256, prompt_tokens=1 << 15, scored_positions=1 << 11)

APART = "apart"
"""Names the way of scoring rows that share nothing, in reports and for cached results."""


class TransformersBackend:
    """`Backend` on transformers and PEFT.

    Answers are decoded by `continuous_batching.decode`. A model that its parts or its cache don't describe falls back
    to transformers' own `generate`, batch by batch, and to whole rows for likelihoods, which is slower.
    """

    engine: Literal["transformers", "vllm"] = "transformers"

    def __init__(self, loaded: LoadedModel, *, limits: BatchLimits | None = None) -> None:
        self._model, self._loaded = loaded.model, loaded
        self._tokenizer, self._encoder = loaded.tokenizer, loaded.encoder
        self._ends = loaded.encoder.end_ids | {end_token_id(loaded.encoder)}
        self._pad = loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None else min(self._ends)
        self._limits = limits or (GPU_LIMITS if loaded.model.device.type == "cuda" else CPU_LIMITS)
        self._parts = CausalParts(loaded.model)
        self._can_decode = self._parts.are_whole and RoomyCache.fits(self._parts.config)
        self._pads = self._parts.are_whole or pads_without_harm(loaded.model, self._pad)
        self.dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
        self.versions = {package: version(package) for package in ("torch", "transformers", "peft")}
        if loaded.encoder.date is not None:
            self.versions["date"] = loaded.encoder.date
        if has_packed_layers(loaded.model):
            self.versions["linear_layers"] = LAYOUT
        if not self._can_decode:
            self.versions["rows"] = APART
        self._generated_tokens = 0
        self._generation_seconds = 0.0

    @property
    def base(self) -> ResolvedBase:
        """The model whose weights all adapters share."""
        return self._loaded.base

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, *, adapter: bool, advance: Advance = silent
    ) -> list[Generation]:
        rows = [prompt_ids(self._encoder, prompt) for prompt in prompts]
        repeats = (repeat for _, repeat in numbered(prompts, settings.first_repeat))
        requests = [
            GenerationRequest(ids, sample_seed(settings.seed, ids, n)) for ids, n in zip(rows, repeats, strict=True)
        ]
        decoding = Decoding(
            self._ends,
            self._pad,
            settings.max_new_tokens,
            settings.temperature,
            rows=self._limits.generated_rows,
            prompt_tokens=self._limits.prompt_tokens,
        )
        started = time.monotonic()
        with self._switched(adapter):
            slow = partial(decode_with_transformers, self._model, pads=self._pads)
            way = partial(decode, self._parts) if self._can_decode else slow
            tokens = way(requests, decoding, done=lambda finished: advance(finished, len(requests)))
        self._generation_seconds += time.monotonic() - started
        return [self._answer(row) for row in tokens]

    def _answer(self, tokens: list[int]) -> Generation:
        ended = tokens[-1] in self._ends
        kept = tokens[:-1] if ended else tokens
        self._generated_tokens += len(tokens)
        text = str(self._tokenizer.decode(kept, skip_special_tokens=True))
        return Generation(text=text, n_tokens=len(kept), truncated=not ended)

    @torch.inference_mode()
    def log_likelihood(
        self, questions: Sequence[Choices], *, adapter: bool, advance: Advance = silent
    ) -> list[tuple[Likelihood, ...]]:
        answers = [question_ids(self._encoder, question) for question in questions]
        if not self._parts.are_whole:
            return self._whole_rows(answers, adapter=adapter, advance=advance)
        prompts = [choices[0].prompt_ids for choices in answers]
        completions = [[choice.answer_ids for choice in choices] for choices in answers]
        shared = shared_prefix(prompts) if self._can_decode else []  # padding after it would stretch distances
        results: dict[int, tuple[Likelihood, ...]] = {}
        with self._switched(adapter):
            prefix = Prefix.of(shared, self._parts)
            for batch in self._likelihood_batches(prompts, completions):
                work = LikelihoodBatch([prompts[i][len(shared) :] for i in batch], [completions[i] for i in batch])
                scored = work.run(
                    self._parts, prefix, pad_id=self._pad, positions_at_once=self._limits.scored_positions
                )
                results |= dict(zip(batch, scored, strict=True))
                advance(len(results), len(questions))
        return [results[index] for index in range(len(questions))]

    def log_likelihood_under(
        self, adapter: Path, questions: Sequence[Choices], *, advance: Advance = silent
    ) -> list[tuple[Likelihood, ...]]:
        """Likelihood under another adapter of the same base, in a folder, which is off again afterwards."""
        with adapter_in_place(self._loaded, adapter) as loaded:
            return TransformersBackend(loaded, limits=self._limits).log_likelihood(
                questions, adapter=True, advance=advance
            )

    def _whole_rows(
        self, answers: Sequence[list[Answer]], *, adapter: bool, advance: Advance
    ) -> list[tuple[Likelihood, ...]]:
        rows = [row for choices in answers for row in choices]
        with self._switched(adapter):
            scored = iter(
                whole_row_likelihoods(
                    self._model,
                    rows,
                    positions_at_once=self._limits.scored_positions,
                    done=lambda finished: advance(finished * len(answers) // len(rows), len(answers)),
                )
            )
        return [tuple(next(scored) for _ in choices) for choices in answers]

    def _likelihood_batches(self, prompts: list[list[int]], completions: list[list[list[int]]]) -> Iterator[list[int]]:
        """Indices of questions of like length, as many at once as the limit of tokens allows."""
        longest = [max(map(len, choices)) for choices in completions]
        cost = [max(len(completions[i]) * longest[i], len(prompts[i])) for i in range(len(prompts))]
        batch: list[int] = []
        tokens = 0
        for index in sorted(range(len(prompts)), key=lambda i: (longest[i], len(prompts[i]))):
            if batch and tokens + cost[index] > self._limits.prompt_tokens:
                yield batch
                batch, tokens = [], 0
            batch.append(index)
            tokens += cost[index]
        if batch:
            yield batch

    @torch.inference_mode()
    def max_logit_difference(self, prompts: Sequence[Prompt]) -> float:
        rows = [prompt_ids(self._encoder, prompt) for prompt in prompts]
        ids, mask = pad_batch(rows, self._pad, left=True, device=self._model.device)
        with self._switched(True):
            on = self._next_logits(ids, mask)
        with self._switched(False):
            off = self._next_logits(ids, mask)
        return float((on - off).abs().max())

    def adapter_scaled(self, factor: float) -> AbstractContextManager[None]:
        if not isinstance(self._model, PeftModel):
            raise EvaluationError("no adapter is attached, so none can be scaled")
        return scaled_adapter(self._model, factor)

    def tokens_per_second(self) -> float | None:
        return self._generated_tokens / self._generation_seconds if self._generation_seconds else None

    def _next_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        with contiguous_output_layer(self._model):
            logits: Tensor = self._model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits
        return logits[:, -1].float()

    def _switched(self, adapter: bool) -> AbstractContextManager[None]:
        if isinstance(self._model, PeftModel):
            return nullcontext() if adapter else self._model.disable_adapter()
        if adapter:
            raise EvaluationError("no adapter is attached, so none can be measured")
        return nullcontext()
