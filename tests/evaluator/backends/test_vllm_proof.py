"""vLLM gives no logits and may answer equal requests unequally: what still proves that an adapter is in force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator.backends.protocol import ChatPrompt, Prompt, RawPrompt
from evaluator.backends.vllm_backend import BASE_RUNS, VllmBackend, load_engine
from evaluator.models.loading import LoadedModel
from tests.evaluator.backends.vllm_stand_in import LLM, LoRARequest, SamplingParams, stand_in

PROMPTS: list[Prompt] = [RawPrompt("a much longer beginning"), ChatPrompt.of("What is it?")]


class NoisyLLM(LLM):
    """Log-probabilities are off by normal noise of 0.01 nats, as those of an engine whose batches differ."""

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._noise = torch.Generator().manual_seed(0)

    def _request(self, model: Any, ids: list[int], params: SamplingParams) -> Any:
        answer = super()._request(model, ids, params)
        for place in answer.prompt_logprobs[1:]:
            for scored in place.values():
                scored.logprob += 0.01 * float(torch.randn((), generator=self._noise))
        return answer


class ForgetfulLLM(NoisyLLM):
    """Drops adapters in silence."""

    def _model(self, lora: LoRARequest | None) -> Any:
        return self._base


def losing(lost_run: int) -> type[LLM]:
    """An engine that gives NaN for one token in one of its runs."""
    runs = itertools.count()

    class LosingLLM(LLM):
        def generate(self, *arguments: Any, **settings: Any) -> list[Any]:
            outputs = super().generate(*arguments, **settings)
            if next(runs) == lost_run:
                (scored,) = outputs[0].prompt_logprobs[1].values()
                scored.logprob = math.nan
            return outputs

    return LosingLLM


def opened(engine: type[LLM], loaded: LoadedModel, adapter: Path) -> VllmBackend:
    return VllmBackend(load_engine(loaded.base, dtype="float32", load_modules=lambda: stand_in(engine)), adapter)


def test_the_noise_of_an_engine_that_dropped_the_adapter_is_no_proof(
    loaded: LoadedModel, make_adapter: Callable[..., Path]
) -> None:
    """A run with the adapter is then one run more of the base, and differs by more than two others in half of all."""
    backend = opened(ForgetfulLLM, loaded, make_adapter(0.5))

    assert [backend.max_logit_difference(PROMPTS) for _ in range(12)] == [0.0] * 12


def test_a_strong_adapter_is_seen_through_the_noise(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    """The adapter moves single tokens by nats, two runs of the base by about 4 · √2 · 0.01 = 0.06."""
    assert opened(NoisyLLM, loaded, make_adapter(0.5)).max_logit_difference(PROMPTS) > 0.6


@pytest.mark.parametrize("lost_run", range(BASE_RUNS + 1))
def test_a_nan_in_any_run_is_no_proof(lost_run: int, loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    assert math.isnan(opened(losing(lost_run), loaded, make_adapter(0.5)).max_logit_difference(PROMPTS))
