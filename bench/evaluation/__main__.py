"""How fast an evaluation is: `python -m bench.evaluation --model M`; the last line is one JSON object.

Generation speed against transformers, seconds and samples to a verdict for an adapter that clearly passes, one that
clearly fails and one near the limit, sequential against fixed-n, and the cost of a second adapter on the same base.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # a third of the time of these imports would go into looking for garbage

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from bench.evaluation.case_adapters import (
    Case,
    Recipe,
    few_pairs,
    margin_drop,
    preference_limit,
    scale_at,
    scaled,
    train_case,
)
from bench.evaluation.generation_speed import BATCHED, PLAIN, Plan, SideSpeed, measure_speed
from bench.evaluation.verdicts import FIXED, SEQUENTIAL, CaseSettings, Verdict, judge_cases, second_adapter
from evaluator.backends.engines import Attach, open_engine
from evaluator.backends.transformers_backend import CPU_LIMITS, GPU_LIMITS
from evaluator.models.allocator import keep_freed_memory
from evaluator.models.base_models import ResolvedBase
from evaluator.models.loading import best_dtype, default_device, load_base, resolve_base_model
from policies.cache_folder import cache_folder
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from policies.documents.schema import ReleasePolicy

PARTS = ("generation", "verdicts", "second")
PASS, FAIL, BORDERLINE = "clear pass", "clear fail", "borderline"
DATA = Path(__file__).parents[2] / "gateway" / "demo" / "data"
TRAINED_ON = {PASS: DATA / "home_repair_sensible_train.jsonl", FAIL: DATA / "home_repair_careless_train.jsonl"}


class Size(NamedTuple):
    """How much is measured."""

    generation: Plan
    training_rows: int
    search_share: float
    """Share of the categories of answer pairs on which the borderline adapter is sought."""
    search_steps: int


FULL = Size(Plan(prompts=64, plain_prompts=2, rows=0, rounds=5), training_rows=120, search_share=0.25, search_steps=6)
QUICK = Size(
    Plan(prompts=12, plain_prompts=2, rows=4, rounds=1, new_tokens=6),
    training_rows=8,
    search_share=0.05,
    search_steps=2,
)


class Bar(NamedTuple):
    """A figure and what it is held against."""

    name: str
    value: float
    bar: str
    met: bool


def main(command_line: Sequence[str] | None = None) -> None:
    """Without a command line, that of this process."""
    arguments = _parser().parse_args(command_line)
    size = QUICK if arguments.quick else FULL
    policy = _quick(resolve_policy(arguments.policy)) if arguments.quick else resolve_policy(arguments.policy)
    with tempfile.TemporaryDirectory() as scratch:
        parts = PARTS if arguments.only is None else (arguments.only,)
        document = _bench(arguments.model, policy, size, folder=Path(scratch), parts=parts)
    if arguments.results is not None:
        arguments.results.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--policy", default="baseline", help="whose suite and rules decide")
    parser.add_argument("--results", type=Path, help="write the JSON object here as well")
    parser.add_argument("--only", choices=PARTS, help="one part alone; parts share no measurement")
    parser.add_argument("--quick", action="store_true", help="one probe and few prompts, to see that the bench runs")
    return parser


def _quick(policy: ReleasePolicy) -> ReleasePolicy:
    """The policy with the preference probe and its rule alone, on few pairs."""
    settings = few_pairs(QUICK.search_share)
    rules = tuple(rule for rule in policy.spec.rules if rule.probe == settings.probe)
    suite = policy.spec.suite.model_copy(update={"probes": (settings,)})
    return policy.model_copy(update={"spec": policy.spec.model_copy(update={"suite": suite, "rules": rules})})


def _bench(
    model: str, policy: ReleasePolicy, size: Size, *, folder: Path, parts: Sequence[str] = PARTS
) -> dict[str, object]:
    cache_dir = cache_folder()
    spec = base_model_of(model, None)
    base = resolve_base_model(reference(spec), cache_dir)
    document: dict[str, object] = {
        "model": model,
        "policy": policy.metadata.name,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": str(best_dtype(default_device())).removeprefix("torch."),
    }
    bars: list[Bar] = []
    if "generation" in parts:
        speed = _speed(base, size.generation)
        bars += _speed_bars(speed)
        print(_generation_table(speed))
        document["generation"] = [row._asdict() for row in speed]
    if {"verdicts", "second"} & set(parts):
        recipe = Recipe(spec, size.training_rows, cache_dir)
        passing = train_case(PASS, TRAINED_ON[PASS], recipe, folder=folder / PASS, defenses=tuple(policy.spec.defenses))
        cases = [passing, train_case(FAIL, TRAINED_ON[FAIL], recipe, folder=folder / FAIL)]
        case_settings = CaseSettings(policy, open_engine("transformers", base), folder / "caches")
    if "verdicts" in parts:
        borderline = _borderline(cases[-1], policy, case_settings.attach, size=size, folder=folder)
        verdicts = judge_cases([*cases, borderline], case_settings)
        bars += _verdict_bars(verdicts)
        print(_verdict_table(verdicts))
        document["verdicts"] = [verdict._asdict() for verdict in verdicts]
    if "second" in parts:
        second = second_adapter(cases[0], cases[1], case_settings)
        bars.append(_at_most("second adapter ÷ first", second.ratio, 0.6))
        document["second_adapter"] = second._asdict() | {"ratio": second.ratio}
    print(_bar_table(bars))
    return document | {"bars": [bar._asdict() for bar in bars]}


def _speed(base: ResolvedBase, plan: Plan) -> list[SideSpeed]:
    limits = GPU_LIMITS if torch.cuda.is_available() else CPU_LIMITS
    return measure_speed(load_base(base), plan._replace(rows=plan.rows or limits.generated_rows))


def _borderline(failing: Case, policy: ReleasePolicy, attach: Attach, *, size: Size, folder: Path) -> Case:
    """The failing adapter scaled down until its drop is near the policy's limit."""
    settings = few_pairs(size.search_share)
    made: dict[float, Case] = {}

    def drop(scale: float) -> float:
        made[scale] = scaled(failing, scale, name=BORDERLINE, folder=folder / f"scale-{len(made)}")
        found = margin_drop(made[scale], settings, attach, cache_dir=folder / "search")
        print(f"borderline: scale {scale:.4f} drops {found:+.4f} nats/token")
        sys.stdout.flush()
        return found

    return made[scale_at(preference_limit(policy), drop, steps=size.search_steps)]


def _speed_bars(speed: list[SideSpeed]) -> list[Bar]:
    ratios = {row.side: row.ours_ratio for row in speed}
    return [
        _at_least("generation, ours ÷ plain loop", ratios[PLAIN], 4.0),
        _at_least("generation, ours ÷ batched generate", ratios[BATCHED], 1.0),
    ]


def _verdict_bars(verdicts: list[Verdict]) -> list[Bar]:
    """Of the clear cases: the right decision, with a quarter of the samples."""
    found = {(verdict.case, verdict.way): verdict for verdict in verdicts}
    bars = []
    for case, decision in ((PASS, "release"), (FAIL, "reject")):
        fixed, sequential = found[case, FIXED], found[case, SEQUENTIAL]
        n_right = sum(verdict.decision == decision for verdict in (fixed, sequential))
        bars.append(Bar(f"{case}: verdicts that {decision}", n_right, "= 2", n_right == 2))
        for name, probes in (("deciding probes", sequential.deciding), ("the suite", tuple(fixed.samples))):
            share = sum(sequential.samples.get(p, 0) for p in probes) / max(1, sum(fixed.samples[p] for p in probes))
            bars.append(_at_most(f"{case}: samples of {name}, sequential ÷ fixed-n", round(share, 3), 0.25))
    return bars


def _at_least(name: str, value: float, bar: float) -> Bar:
    return Bar(name, value, f"≥ {bar:g}", value >= bar)


def _at_most(name: str, value: float, bar: float) -> Bar:
    return Bar(name, value, f"≤ {bar:g}", value <= bar)


def _generation_table(speed: list[SideSpeed]) -> str:
    lines = ["| side | tokens/s | ours ÷ it (range) | answers equal to ours |", "|---|---:|---:|---:|"]
    for row in speed:
        low, high = row.ours_ratio_range
        lines.append(
            f"| {row.side} | {row.tokens_per_second} | {row.ours_ratio} ({low} to {high}) | {row.equal_answers} |"
        )
    return "\n".join(lines) + "\n"


def _verdict_table(verdicts: list[Verdict]) -> str:
    lines = ["| case | way | verdict | seconds | samples | decided by |", "|---|---|---|---:|---:|---|"]
    for v in verdicts:
        deciding = ", ".join(f"{probe} {v.samples.get(probe, 0)}" for probe in v.deciding)
        lines.append(f"| {v.case} | {v.way} | {v.decision} | {v.seconds} | {sum(v.samples.values())} | {deciding} |")
    return "\n".join(lines) + "\n"


def _bar_table(bars: list[Bar]) -> str:
    lines = ["| bar | measured | wanted | |", "|---|---:|---:|---|"]
    lines += [f"| {bar.name} | {bar.value} | {bar.bar} | {'met' if bar.met else 'missed'} |" for bar in bars]
    return "\n".join(lines)


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    keep_freed_memory()
    main()
