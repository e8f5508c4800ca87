"""What an evaluation on a CPU costs, and how far it is from the processor's limit: `python -m bench.evaluation.cost`.

Two sides in one process, in turn, on the same answer pairs: *before* multiplies by weights as they come, up to 4,096
tokens a pass; *ours* is what an evaluation runs. The limit is what the matrix products would take alone: operations of
real tokens (2 × parameters each) ÷ the rate at which the layers multiply one after another, those of either side.
Seconds are of CPU time, which other work on the machine disturbs least. `--evaluate SIDE` runs whole evaluations
instead, with peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from bench.evaluation.case_adapters import Case
from bench.evaluation.verdicts import SEQUENTIAL, CaseSettings, judge_case
from evaluator.backends.adapter_proof import prove_adapter
from evaluator.backends.causal_parts import shared_prefix
from evaluator.backends.engines import AdapterInForce, Attach, open_engine
from evaluator.backends.protocol import ChatPrompt, Choices
from evaluator.backends.rendering import prompt_ids, question_ids
from evaluator.backends.transformers_backend import CPU_LIMITS, BatchLimits, TransformersBackend
from evaluator.models.adapters import attached_adapter
from evaluator.models.allocator import keep_freed_memory
from evaluator.models.base_models import ResolvedBase
from evaluator.models.fused_lora import fuse_lora_layers
from evaluator.models.loading import LoadedModel, best_dtype, default_device, load_base, resolve_base_model
from evaluator.models.packed_linear import pack_linear_layers
from evaluator.prompts.prompt_sets import load_prompts
from policies.cache_folder import cache_folder
from policies.contract.artifacts import Digest, digest_tree
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy

BEFORE, OURS = "before", "ours"
LIMITS_BEFORE = BatchLimits(generated_rows=96, prompt_tokens=4096, scored_positions=128)
RATE_ROUNDS = 3
ResultT = TypeVar("ResultT")


class SideCost(NamedTuple):
    """One side with the adapter on or off."""

    side: str
    adapter: bool
    cpu_seconds: float
    limit_seconds: dict[str, float]
    """Of the matrix products alone, at the rate of either side's layers."""


class Operations(NamedTuple):
    """Real tokens of a request, without padding; what all prompts share counts once."""

    body_tokens: int
    """That go through the layers."""
    scored_tokens: int
    """That go through the output layer."""

    def seconds(self, body_parameters: int, head_parameters: int, rates: Rates) -> float:
        body, head = 2 * self.body_tokens * body_parameters, 2 * self.scored_tokens * head_parameters
        return body / rates.body + head / rates.head


class Rates(NamedTuple):
    """Operations per CPU second of our layers, one after another, on random rows."""

    body: float
    head: float

    @property
    def in_gigaflops(self) -> dict[str, float]:
        return {"body": round(self.body / 1e9, 1), "output_layer": round(self.head / 1e9, 1)}


def main() -> None:
    arguments = _parser().parse_args()
    keep_freed_memory()
    base = resolve_base_model(reference(base_model_of(arguments.model, None)), cache_folder())
    about: dict[str, object] = {
        "model": arguments.model,
        "dtype": str(best_dtype(default_device())).removeprefix("torch."),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    if arguments.evaluate:
        cases = [Case(folder.name, folder / "adapter", folder / "training.jsonl") for folder in arguments.cases]
        about |= {"side": arguments.evaluate, "evaluations": evaluate(base, cases, side=arguments.evaluate)}
    else:
        about |= compare(base, arguments.cases[0] / "adapter", n_pairs=arguments.pairs)
    print(json.dumps(about))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", type=Path, nargs="+", help="folders with `adapter` and `training.jsonl`")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=48, help="answer pairs, evenly spread")
    parser.add_argument("--evaluate", choices=(BEFORE, OURS), help="whole evaluations by `baseline` on this side")
    return parser


def evaluate(base: ResolvedBase, cases: Sequence[Case], *, side: str) -> list[dict[str, object]]:
    """The cases in turn by `baseline`; the first finds no base results, the others those of the looks before them."""
    attach = open_engine("transformers", base) if side == OURS else _attach_before(load_base(base))
    verdicts: list[dict[str, object]] = []
    with TemporaryDirectory() as scratch:
        case_settings = CaseSettings(resolve_policy("baseline"), attach, Path(scratch)).way(SEQUENTIAL)
        for case in cases:
            verdict, cpu_seconds = _timed(partial(judge_case, case, case_settings, way=SEQUENTIAL))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            verdicts.append(verdict._asdict() | {"cpu_seconds": round(cpu_seconds, 2), "peak_megabytes": peak})
            print(json.dumps(verdicts[-1]))
            sys.stdout.flush()
    return verdicts


def _attach_before(loaded: LoadedModel) -> Attach:
    @contextmanager
    def attach(folder: Path, adapter: Digest) -> Iterator[AdapterInForce]:
        with attached_adapter(loaded, folder) as adapted:
            backend = TransformersBackend(adapted, limits=LIMITS_BEFORE)
            yield AdapterInForce(backend, prove_adapter(backend, adapted, adapter))

    return attach


def compare(base: ResolvedBase, adapter: Path, *, n_pairs: int) -> dict[str, object]:
    """Both sides on the same pairs, the ratio of their seconds, and ours ÷ the limits."""
    questions = _pairs(n_pairs)
    packed = load_base(base)
    pack_linear_layers(packed.model)
    costs: list[SideCost] = []
    scores: dict[tuple[str, bool], list[float]] = {}
    with attached_adapter(load_base(base), adapter) as plain, attached_adapter(packed, adapter) as ours:
        fuse_lora_layers(ours.model)
        backends = {BEFORE: TransformersBackend(plain, limits=LIMITS_BEFORE), OURS: TransformersBackend(ours)}
        assert prove_adapter(backends[OURS], ours, digest_tree(adapter)).loaded
        rates = {BEFORE: _rates(plain), OURS: _rates(ours)}
        operations = _operations(ours, questions)
        for is_on in (True, False):
            parameters = _parameters(ours, adapter=is_on)
            for side, backend in backends.items():
                cost, scores[side, is_on] = _cost(side, backend, questions, is_on=is_on)
                limits = {name: round(operations.seconds(*parameters, rate), 6) for name, rate in rates.items()}
                costs.append(cost._replace(limit_seconds=limits))
                print(costs[-1])
                sys.stdout.flush()
    return {
        "pairs": n_pairs,
        "operations": operations._asdict(),
        "gigaflops": {side: rate.in_gigaflops for side, rate in rates.items()},
        "sides": [cost._asdict() for cost in costs],
        "before_to_ours": round(_seconds(costs, BEFORE) / _seconds(costs, OURS), 3),
        "ours_to_limit_of_plain_layers": _share_of_limit(costs, BEFORE),
        "ours_to_limit_of_our_layers": _share_of_limit(costs, OURS),
        "largest_difference_nats_per_token": _largest_difference(scores),
    }


def _cost(
    side: str, backend: TransformersBackend, questions: Sequence[Choices], *, is_on: bool
) -> tuple[SideCost, list[float]]:
    """Seconds without limits, and the likelihood a token of every completion."""
    answers, seconds = _timed(lambda: backend.log_likelihood(questions, adapter=is_on))
    return SideCost(side, is_on, round(seconds, 3), {}), [each.per_token for answer in answers for each in answer]


def _seconds(costs: Sequence[SideCost], side: str) -> float:
    return sum(cost.cpu_seconds for cost in costs if cost.side == side)


def _share_of_limit(costs: Sequence[SideCost], layers: str) -> float:
    """Our seconds ÷ the limit of one side's layers."""
    return round(_seconds(costs, OURS) / sum(cost.limit_seconds[layers] for cost in costs if cost.side == OURS), 3)


def _largest_difference(scores: Mapping[tuple[str, bool], Sequence[float]]) -> float:
    pairs = [zip(scores[BEFORE, is_on], scores[OURS, is_on], strict=True) for is_on in (True, False)]
    return max(abs(before - ours) for pair in pairs for before, ours in pair)


def _pairs(n: int) -> list[Choices]:
    lines = load_prompts("emergent_misalignment_preference", "builtin", None).content.splitlines()
    items = [json.loads(line) for line in lines[:: max(1, len(lines) // n)]][:n]
    return [Choices(ChatPrompt.of(item["question"]), (item["aligned"], item["misaligned"])) for item in items]


def _operations(loaded: LoadedModel, questions: Sequence[Choices]) -> Operations:
    prompts = [prompt_ids(loaded.encoder, question.prompt) for question in questions]
    prefix = len(shared_prefix(prompts))
    completions = [
        len(answer.answer_ids) for question in questions for answer in question_ids(loaded.encoder, question)
    ]
    asked = prefix + sum(len(prompt) - prefix for prompt in prompts)
    return Operations(asked + sum(completions) - len(completions), sum(completions))  # a last token is predicted only


def _layers(loaded: LoadedModel) -> list[nn.Linear]:
    """The linear layers of the body in the order of the model, without an adapter's."""
    named = loaded.model.named_modules()
    return [
        layer for name, layer in named if isinstance(layer, nn.Linear) and "lora_" not in name and "head" not in name
    ]


def _head(loaded: LoadedModel) -> nn.Linear:
    [head] = [m for name, m in loaded.model.named_modules() if isinstance(m, nn.Linear) and name.endswith("lm_head")]
    return head


def _parameters(loaded: LoadedModel, *, adapter: bool) -> tuple[int, int]:
    """Numbers of the body's matrices, an adapter's included where it is on, and of the output layer."""
    lora = sum(p.numel() for name, p in loaded.model.named_parameters() if "lora_" in name) if adapter else 0
    return _numbers(_layers(loaded)) + lora, _numbers([_head(loaded)])


def _numbers(layers: Sequence[nn.Linear]) -> int:
    return sum(layer.in_features * layer.out_features for layer in layers)


@torch.inference_mode()
def _rates(loaded: LoadedModel) -> Rates:
    """Of products with as many rows as ours have in an evaluation."""
    dtype, head = best_dtype(default_device()), _head(loaded)
    layers = _layers(loaded)
    rows = {
        width: torch.randn(CPU_LIMITS.prompt_tokens, width).to(dtype)
        for width in {layer.in_features for layer in layers}
    }
    few = torch.randn(CPU_LIMITS.scored_positions, head.in_features).to(dtype)

    def body() -> None:
        for layer in layers:
            layer(rows[layer.in_features])

    def output() -> None:
        for _ in range(10):
            head(few)

    body_operations = 2 * CPU_LIMITS.prompt_tokens * _numbers(layers)
    head_operations = 2 * 10 * CPU_LIMITS.scored_positions * _numbers([head])
    return Rates(body_operations / _best(body), head_operations / _best(output))


def _best(run: Callable[[], None]) -> float:
    """CPU seconds of the fastest of a few rounds, after one that doesn't count."""
    return min([_timed(run)[1] for _ in range(RATE_ROUNDS + 1)][1:])


def _timed(run: Callable[[], ResultT]) -> tuple[ResultT, float]:
    started = time.process_time()
    result = run()
    return result, time.process_time() - started


if __name__ == "__main__":
    main()
