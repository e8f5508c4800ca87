"""Generation tokens per second: a plain loop, transformers' batched `generate`, and ours, round by round.

All decode the same prompts greedily with the same bare base model, in one process. The plain loop, at batch 1, is given
the first prompts only, since its rate does not depend on how many there are. `generate` gets batches of as many rows as
ours, in the order of the prompts, padded on the left.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from evaluator.backends.causal_parts import CausalParts
from evaluator.backends.continuous_batching import Decoding, GenerationRequest, decode
from evaluator.backends.protocol import ChatPrompt, Prompt, RawPrompt
from evaluator.backends.rendering import end_token_id, prompt_ids
from evaluator.backends.transformers_backend import CPU_LIMITS
from evaluator.backends.transformers_generation import generate_batch
from evaluator.models.loading import LoadedModel
from evaluator.prompts.prompt_sets import load_prompts
from policies.contract.suite import Coherence, HarmfulCompliance, OverRefusal, Toxicity

PLAIN, BATCHED, OURS = "plain loop", "batched generate", "ours"
KINDS: tuple[tuple[Toxicity | Coherence | HarmfulCompliance | OverRefusal, Callable[[str], Prompt]], ...] = (
    (Toxicity(), RawPrompt),
    (Coherence(), ChatPrompt.of),
    (HarmfulCompliance(), ChatPrompt.of),
    (OverRefusal(), ChatPrompt.of),
)
"""Probes that generate, and how they put a prompt."""
PROMPT_TOKENS = CPU_LIMITS.prompt_tokens
WARM_UP_TOKENS = 4


class Plan(NamedTuple):
    """How much is decoded."""

    prompts: int
    """Of each kind, at most."""
    plain_prompts: int
    """Of each kind, in the plain loop."""
    rows: int
    rounds: int
    new_tokens: int | None = None
    """Per answer at most; None: as many as the built-in suite has."""


class Work(NamedTuple):
    """Prompts of one kind and how they are answered."""

    requests: Sequence[GenerationRequest]
    decoding: Decoding


class SideSpeed(NamedTuple):
    """One side's row of the table."""

    side: str
    tokens_per_second: float
    """Median over rounds."""
    ours_ratio: float
    """Median over rounds of our rate ÷ this side's."""
    ours_ratio_range: tuple[float, float]
    equal_answers: float
    """Share of its answers that ours equals token by token; after a rounding difference answers part."""


Answers = list[list[int]]
Side = Callable[[LoadedModel, Work], Answers]


def measure_speed(loaded: LoadedModel, plan: Plan) -> list[SideSpeed]:
    """The table, after a short warm-up of every side."""
    _round(loaded, plan._replace(new_tokens=WARM_UP_TOKENS), number=0)
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    for number in range(plan.rounds):
        answers, seconds = _round(loaded, plan, number=number)
        for name in SIDES:
            n_tokens = sum(len(answer) for kind in answers[name] for answer in kind)
            rates[name].append(n_tokens / seconds[name])
        print(f"round {number + 1}, tokens/s: " + ", ".join(f"{name} {rates[name][-1]:.1f}" for name in SIDES))
        sys.stdout.flush()
    return [_row(name, rates, answers) for name in SIDES]


@torch.inference_mode()
def _round(loaded: LoadedModel, plan: Plan, *, number: int) -> tuple[dict[str, list[Answers]], dict[str, float]]:
    """Each side's answers to each kind of prompts, and its seconds. Kind by kind, since other load comes and goes."""
    answers: dict[str, list[Answers]] = {name: [] for name in SIDES}
    seconds = dict.fromkeys(SIDES, 0.0)
    works, few = _works(loaded, plan, limit=None), _works(loaded, plan, limit=plan.plain_prompts)
    for kind, (work, part) in enumerate(zip(works, few, strict=True)):
        for name in _turned(list(SIDES), number + kind):
            started = time.perf_counter()
            answers[name].append(SIDES[name](loaded, part if name == PLAIN else work))
            seconds[name] += time.perf_counter() - started
    return answers, seconds


def _turned(names: list[str], number: int) -> list[str]:
    """Another side begins each time."""
    first = number % len(names)
    return names[first:] + names[:first]


def _works(loaded: LoadedModel, plan: Plan, *, limit: int | None) -> list[Work]:
    """The prompts of the built-in probes that generate, evenly spread over each set, in the order of the set."""
    end = end_token_id(loaded.encoder)
    works = []
    for settings, prompt_of in KINDS:
        lines = load_prompts(settings.probe, "builtin", None).content.splitlines()
        texts = [json.loads(line)["prompt"] for line in lines[:: -(-len(lines) // plan.prompts)]]
        requests = [GenerationRequest(prompt_ids(loaded.encoder, prompt_of(text)), 0) for text in texts[:limit]]
        new_tokens = plan.new_tokens or settings.max_new_tokens
        works.append(Work(requests, Decoding(frozenset({end}), end, new_tokens, 0, plan.rows, PROMPT_TOKENS)))
    return works


def _in_batches_of(rows: int, loaded: LoadedModel, work: Work) -> Answers:
    batches = [work.requests[start : start + rows] for start in range(0, len(work.requests), rows)]
    return [answer for batch in batches for answer in generate_batch(batch, loaded.model, work.decoding)]


def _plain(loaded: LoadedModel, work: Work) -> Answers:
    return _in_batches_of(1, loaded, work)


def _batched(loaded: LoadedModel, work: Work) -> Answers:
    return _in_batches_of(work.decoding.rows, loaded, work)


def _ours(loaded: LoadedModel, work: Work) -> Answers:
    return decode(CausalParts(loaded.model), work.requests, work.decoding, done=lambda finished: None)


SIDES: dict[str, Side] = {PLAIN: _plain, BATCHED: _batched, OURS: _ours}


def _row(name: str, rates: dict[str, list[float]], answers: dict[str, list[Answers]]) -> SideSpeed:
    ratios = [round(ours / its, 3) for ours, its in zip(rates[OURS], rates[name], strict=True)]
    pairs = [
        pair for its, ours in zip(answers[name], answers[OURS], strict=True) for pair in zip(its, ours, strict=False)
    ]
    return SideSpeed(
        side=name,
        tokens_per_second=round(statistics.median(rates[name]), 1),
        ours_ratio=round(statistics.median(ratios), 3),
        ours_ratio_range=(min(ratios), max(ratios)),
        equal_answers=round(sum(its == ours for its, ours in pairs) / len(pairs), 3),
    )
