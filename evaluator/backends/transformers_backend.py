"""Runs a base model and its adapter with transformers: one set of weights, adapter switched on and off."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor
from transformers import LogitsProcessorList

from evaluator.backend import Advance, Choices, Generation, GenerationSettings, Likelihood, Prompt, silent
from evaluator.backends.likelihood import LikelihoodBatch, Scorer
from evaluator.backends.seeded_sampling import SeededSampling
from evaluator.model import LoadedModel
from evaluator.rendering import completion_ids, end_token_id, pad_batch, prompt_ids
from policies.errors import EvaluationError


@dataclass(frozen=True)
class BatchLimits:
    """How much is computed at once."""

    generated_rows: int
    scored_tokens: int
    """Prompt or completion tokens in one pass when completions are scored."""
    scored_positions: int
    """Positions in the output layer at once."""


CPU_LIMITS = BatchLimits(generated_rows=96, scored_tokens=4096, scored_positions=128)
"""Buffers stay below the size (32 MiB) from which the C library gives them back to the system after every use."""
GPU_LIMITS = BatchLimits(generated_rows=256, scored_tokens=1 << 15, scored_positions=1 << 11)


class TransformersBackend:
    """`Backend` on transformers and PEFT."""

    engine: Literal["transformers", "vllm"] = "transformers"

    def __init__(self, loaded: LoadedModel, *, limits: BatchLimits | None = None) -> None:
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._end = end_token_id(loaded.tokenizer)
        self._pad = loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None else self._end
        self._limits = limits or (GPU_LIMITS if loaded.model.device.type == "cuda" else CPU_LIMITS)
        # A slice of last positions is not contiguous: torch would copy the frozen weight once for each row of it.
        head: Any = loaded.model.get_output_embeddings()  # Any: PEFT types it as a tensor or a module
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
        self._scorer = Scorer(loaded.model, positions_at_once=self._limits.scored_positions)
        self.dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
        self.versions = {package: version(package) for package in ("torch", "transformers", "peft")}
        self._generated_tokens = 0
        self._generation_seconds = 0.0

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, *, adapter: bool, advance: Advance = silent
    ) -> list[Generation]:
        rows = [prompt_ids(self._tokenizer, prompt) for prompt in prompts]
        answers: dict[int, Generation] = {}
        started = time.monotonic()
        with self._switched(adapter):
            for batch in _length_sorted(rows, self._limits.generated_rows):
                answers |= self._generate_batch([rows[index] for index in batch], batch, settings)
                advance(len(answers), len(rows))
        self._generation_seconds += time.monotonic() - started
        return [answers[index] for index in range(len(rows))]

    def _generate_batch(
        self, rows: list[list[int]], positions: list[int], settings: GenerationSettings
    ) -> dict[int, Generation]:
        ids, mask = pad_batch(rows, self._pad, left=True, device=self._model.device)
        sampling = LogitsProcessorList()
        if settings.temperature > 0:
            sampling.append(SeededSampling(settings.temperature, [(settings.seed, index) for index in positions]))
        generate: Any = self._model.generate  # Any: PeftModel passes the attribute on untyped
        output = generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=self._end,
            pad_token_id=self._pad,
            logits_processor=sampling,
        )
        new = output[:, ids.shape[1] :].tolist()
        return {position: self._answer(tokens) for position, tokens in zip(positions, new, strict=True)}

    def _answer(self, tokens: list[int]) -> Generation:
        ended = self._end in tokens
        kept = tokens[: tokens.index(self._end)] if ended else tokens
        self._generated_tokens += len(kept) + ended
        text = str(self._tokenizer.decode(kept, skip_special_tokens=True))
        return Generation(text=text, n_tokens=len(kept), truncated=not ended)

    @torch.inference_mode()
    def log_likelihood(
        self, questions: Sequence[Choices], *, adapter: bool, advance: Advance = silent
    ) -> list[tuple[Likelihood, ...]]:
        prompts = [prompt_ids(self._tokenizer, question.prompt) for question in questions]
        completions = [[self._completion(question, text) for text in question.completions] for question in questions]
        shared = _shared_prefix(prompts)
        results: dict[int, tuple[Likelihood, ...]] = {}
        with self._switched(adapter):
            for batch in self._likelihood_batches(prompts, completions):
                work = LikelihoodBatch([prompts[i][len(shared) :] for i in batch], [completions[i] for i in batch])
                results |= dict(zip(batch, work.run(self._scorer, shared, self._pad), strict=True))
                advance(len(results), len(questions))
        return [results[index] for index in range(len(questions))]

    def _completion(self, question: Choices, text: str) -> list[int]:
        return completion_ids(self._tokenizer, text) + ([self._end] if question.closes_turn else [])

    def _likelihood_batches(self, prompts: list[list[int]], completions: list[list[list[int]]]) -> Iterator[list[int]]:
        """Indices of questions of like length, as many at once as the limit of tokens allows."""
        longest = [max(map(len, choices)) for choices in completions]
        cost = [max(len(completions[i]) * longest[i], len(prompts[i])) for i in range(len(prompts))]
        batch: list[int] = []
        tokens = 0
        for index in sorted(range(len(prompts)), key=lambda i: (longest[i], len(prompts[i]))):
            if batch and tokens + cost[index] > self._limits.scored_tokens:
                yield batch
                batch, tokens = [], 0
            batch.append(index)
            tokens += cost[index]
        if batch:
            yield batch

    @torch.inference_mode()
    def max_logit_difference(self, prompts: Sequence[Prompt]) -> float:
        rows = [prompt_ids(self._tokenizer, prompt) for prompt in prompts]
        ids, mask = pad_batch(rows, self._pad, left=True, device=self._model.device)
        with self._switched(True):
            on = self._next_logits(ids, mask)
        with self._switched(False):
            off = self._next_logits(ids, mask)
        return float((on - off).abs().max())

    def tokens_per_second(self) -> float | None:
        return self._generated_tokens / self._generation_seconds if self._generation_seconds else None

    def _next_logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits
        return logits.float()

    def _switched(self, adapter: bool) -> AbstractContextManager[None]:
        if isinstance(self._model, PeftModel):
            return nullcontext() if adapter else self._model.disable_adapter()
        if adapter:
            raise EvaluationError("no adapter is attached, so none can be measured")
        return nullcontext()


def _length_sorted(rows: list[list[int]], size: int) -> Iterator[list[int]]:
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    yield from (order[start : start + size] for start in range(0, len(order), size))


def _shared_prefix(rows: list[list[int]]) -> list[int]:
    """Tokens that all rows start with, leaving at least one token to each row."""
    if not rows:
        return []
    first, last = min(rows), max(rows)
    limit = min(map(len, rows)) - 1
    length = next((i for i in range(limit) if first[i] != last[i]), limit)
    return first[: max(length, 0)]
