"""Runs a base model and its adapters with vLLM: one engine, adapters by request.

Written against the public API of vLLM 0.26 (`LLM`, `SamplingParams`, `LoRARequest`), which is an optional package.
Answers are tokenised and decoded here as for transformers, so that engines differ in arithmetic only.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

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
from evaluator.backends.rendering import end_token_id, prompt_ids, question_ids
from evaluator.backends.seeded_sampling import sample_seed
from evaluator.models.adapter_settings import SERVED_RANKS, read_config
from evaluator.models.adapters import count_pairs, read_weights, require_same_reading
from evaluator.models.base_models import ResolvedBase
from evaluator.models.loading import load_encoder, load_tokenizer
from policies.errors import ConfigurationError, EvaluationError
from policies.rendering.encoding import Encoder

REQUESTS_AT_ONCE = 4096
"""Handed to the engine in one call; it batches them itself."""
BASE_RUNS = 4
"""How often the base alone is run to see how far equal requests differ."""
MIN_SIGNAL_TO_NOISE = 10.0
"""Without an adapter in force, a run with it is one run more of the base: only a far larger difference is a proof."""


class VllmModules(NamedTuple):
    """What is used of vLLM. Any: the package is not installed where types are checked."""

    vllm: Any
    lora_request: Any


def import_vllm() -> VllmModules:
    """The installed vLLM.

    Raises:
        ConfigurationError: it is not installed here.
    """
    try:
        return VllmModules(import_module("vllm"), import_module("vllm.lora.request"))
    except ImportError as error:
        raise ConfigurationError(
            f"engine vllm needs the package vllm, which can't be imported here ({error}); install it, or use engine "
            "transformers",
            "engine",
        ) from error


@dataclass(frozen=True)
class VllmEngine:
    """A base model in vLLM, ready for adapters up to a rank."""

    modules: VllmModules
    llm: Any  # Any: see VllmModules
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    base: ResolvedBase
    dtype: str
    max_rank: int


def load_engine(
    base: ResolvedBase,
    *,
    dtype: str = "bfloat16",
    max_rank: int = 64,
    load_modules: Callable[[], VllmModules] = import_vllm,
) -> VllmEngine:
    """Load the base model from local safetensors; never runs code from the model folder.

    The prefix cache is off: with it, vLLM's log-probabilities of prompt tokens have depended on earlier requests.
    """
    modules = load_modules()
    try:
        llm = modules.vllm.LLM(
            model=str(base.folder),
            dtype=dtype,
            seed=0,
            load_format="safetensors",
            generation_config="vllm",
            trust_remote_code=False,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=_room_for(max_rank),
            enable_prefix_caching=False,
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"vLLM can't load {base.folder}: {error}", "uri") from error
    tokenizer, encoder = load_tokenizer(base.folder), load_encoder(base)
    return VllmEngine(modules, llm, tokenizer, encoder, base, dtype, _room_for(max_rank))


def _room_for(rank: int) -> int:
    fitting = [each for each in SERVED_RANKS if each >= rank]
    if not fitting:
        raise ConfigurationError(f"vLLM serves LoRA ranks up to {SERVED_RANKS[-1]}; the adapter has {rank}", "r")
    return fitting[0]


class VllmBackend:
    """`Backend` on vLLM, for one adapter or the base alone. Sampling is seeded by request, with vLLM's own noise."""

    engine: Literal["transformers", "vllm"] = "vllm"
    _adapter_numbers = itertools.count(1)

    def __init__(self, engine: VllmEngine, adapter: Path | None = None) -> None:
        self._engine, self._tokenizer, self._encoder = engine, engine.tokenizer, engine.encoder
        self._ends = sorted(engine.encoder.end_ids | {end_token_id(engine.encoder)})
        self.n_modules = 0
        self._lora: Any = None  # Any: see VllmModules
        if adapter is not None:
            self.n_modules = _require_servable(adapter, engine.max_rank)
            number = next(self._adapter_numbers)  # vLLM knows adapters by name and number, so none may come twice
            self._lora = engine.modules.lora_request.LoRARequest(f"{adapter.name}-{number}", number, str(adapter))
        self.dtype = engine.dtype
        self.versions = {"vllm": str(engine.modules.vllm.__version__)}
        if engine.encoder.date is not None:
            self.versions["date"] = engine.encoder.date
        self._generated_tokens = 0
        self._generation_seconds = 0.0

    def generate(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, *, adapter: bool, advance: Advance = silent
    ) -> list[Generation]:
        rows = [prompt_ids(self._encoder, prompt) for prompt in prompts]
        repeats = (repeat for _, repeat in numbered(prompts, settings.first_repeat))
        sampling = [
            self._sampling(
                temperature=settings.temperature,
                max_tokens=settings.max_new_tokens,
                seed=sample_seed(settings.seed, ids, repeat),
                stop_token_ids=self._ends,
                ignore_eos=True,  # those of the model's folder and of its template alone end an answer
            )
            for ids, repeat in zip(rows, repeats, strict=True)
        ]
        started = time.monotonic()
        outputs = self._run(rows, sampling, adapter=adapter, advance=advance)
        self._generation_seconds += time.monotonic() - started
        return [self._answer(output.outputs[0]) for output in outputs]

    def log_likelihood(
        self, questions: Sequence[Choices], *, adapter: bool, advance: Advance = silent
    ) -> list[tuple[Likelihood, ...]]:
        rows = [
            (answer.prompt_ids, answer.answer_ids)
            for question in questions
            for answer in question_ids(self._encoder, question)
        ]
        scored = self._scores([prompt + completion for prompt, completion in rows], adapter=adapter, advance=advance)
        likelihoods = iter(
            Likelihood(math.fsum(scores[-len(completion) :]), len(completion))
            for scores, (_, completion) in zip(scored, rows, strict=True)
        )
        return [tuple(next(likelihoods) for _ in question.completions) for question in questions]

    def max_logit_difference(self, prompts: Sequence[Prompt]) -> float:
        """Largest |difference| of the log-probabilities of the prompts' own tokens with the adapter on and off.

        vLLM gives no logits. The difference to the nearest run of the base counts, and only where it is
        `MIN_SIGNAL_TO_NOISE` times as large as that of any two runs of the base; else it is 0.
        """
        rows = [prompt_ids(self._encoder, prompt) for prompt in prompts]
        off = [self._scores(rows, adapter=False) for _ in range(BASE_RUNS)]
        on = self._scores(rows, adapter=True)
        noise = [_largest_difference(one, other) for one, other in itertools.combinations(off, 2)]
        differences = [_largest_difference(on, run) for run in off]
        if any(map(math.isnan, noise + differences)):
            return math.nan
        return min(differences) if min(differences) > MIN_SIGNAL_TO_NOISE * max(noise) else 0.0

    def tokens_per_second(self) -> float | None:
        return self._generated_tokens / self._generation_seconds if self._generation_seconds else None

    def _scores(self, rows: Sequence[list[int]], *, adapter: bool, advance: Advance = silent) -> list[list[float]]:
        """log p of every token of every row but its first, given those before it."""
        sampling = [self._sampling(temperature=0.0, max_tokens=1, prompt_logprobs=0) for _ in rows]
        outputs = self._run(rows, sampling, adapter=adapter, advance=advance)
        return [_own_logprobs(output.prompt_logprobs, ids) for output, ids in zip(outputs, rows, strict=True)]

    def _run(self, rows: Sequence[list[int]], sampling: Sequence[Any], *, adapter: bool, advance: Advance) -> list[Any]:
        # Any: vLLM's parameters and outputs
        if adapter and self._lora is None:
            raise EvaluationError("no adapter is attached, so none can be measured")
        outputs: list[Any] = []
        for start in range(0, len(rows), REQUESTS_AT_ONCE):
            part = slice(start, start + REQUESTS_AT_ONCE)
            outputs += self._engine.llm.generate(
                [self._engine.modules.vllm.TokensPrompt(prompt_token_ids=ids) for ids in rows[part]],
                list(sampling[part]),
                use_tqdm=False,
                lora_request=self._lora if adapter else None,
            )
            advance(len(outputs), len(rows))
        if len(outputs) != len(rows):
            raise EvaluationError(f"vLLM answered {len(outputs)} of {len(rows)} requests")
        return outputs

    def _sampling(self, **settings: Any) -> Any:  # Any: SamplingParams and its fields
        return self._engine.modules.vllm.SamplingParams(detokenize=False, **settings)

    def _answer(self, output: Any) -> Generation:  # Any: vLLM's CompletionOutput
        tokens = list(output.token_ids)
        ended = output.finish_reason == "stop"
        self._generated_tokens += len(tokens)
        kept = tokens[:-1] if tokens and tokens[-1] in self._ends else tokens
        text = str(self._tokenizer.decode(kept, skip_special_tokens=True))
        return Generation(text=text, n_tokens=len(kept), truncated=not ended)


def _require_servable(folder: Path, max_rank: int) -> int:
    """How many modules the adapter changes."""
    config = read_config(folder)
    if config.r > max_rank:
        raise ConfigurationError(
            f"the adapter has rank {config.r}, but the engine has room only up to rank {max_rank}", "r"
        )
    weights = read_weights(folder)
    require_same_reading(config, weights)
    return count_pairs(weights)


def _own_logprobs(logprobs: Sequence[Any] | None, ids: list[int]) -> list[float]:  # Any: vLLM's Logprob by token
    """log p of each of `ids` but the first, which has none."""
    if logprobs is None or len(logprobs) != len(ids):
        raise EvaluationError("vLLM gave no log-probabilities for a prompt")
    return [float(here[token].logprob) for here, token in zip(logprobs[1:], ids[1:], strict=True)]


def _largest_difference(first: Iterable[list[float]], second: Iterable[list[float]]) -> float:
    """NaN where any value is NaN."""
    pairs = zip(itertools.chain(*first), itertools.chain(*second), strict=True)
    differences = [abs(a - b) for a, b in pairs]
    return math.nan if any(map(math.isnan, differences)) else max(differences, default=0.0)
