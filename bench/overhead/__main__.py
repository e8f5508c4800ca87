"""What each defense costs in time and memory: `python -m bench.overhead`.

Each side trains the same LoRA on the same rows of at least 256 tokens as plain TRL does beside it, in one process and
in turn, step by step; its ratio is the median over rounds of its seconds ÷ plain TRL's in the same round. A side whose
work repeats every n steps has the sums of n rounds compared. A defense that shows no evidence fails the bench. What a
run pays once, whatever its steps, is a figure of its own. Peak memory is that of a process of its own for each side.
The last line is one JSON object. On a GPU, `--random-8b` trains a randomly initialised model of Llama-8B's shape.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # a third of the time of these imports would go into looking for garbage

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from bench.overhead.interleaved_steps import in_turn
from bench.overhead.long_rows import long_rows
from bench.overhead.sides import PLAIN, Task, rows_needed, sides, steps_of
from bench.overhead.timing import Timing, plain_timing, time_side
from bench.overhead.training import build
from evaluator.models.allocator import keep_freed_memory
from evaluator.models.loading import load_encoder, load_tokenizer, resolve_base_model
from policies.cache_folder import cache_folder
from policies.documents.base_models import base_model_of, reference


class Bars(NamedTuple):
    """The highest ratios to plain TRL that the project allows itself, by side."""

    time: dict[str, float]
    memory: dict[str, float]


CPU_BARS = Bars(
    time={
        "undefended": 1.02,
        "safe_data_interleaving": 1.07,
        "preventative_steering": 1.05,
        "kl_penalty full": 1.35,
        "kl_penalty sampled": 1.05,
        "ldifs": 1.35,
        "kl_penalty + ldifs + steering": 1.50,
    },
    memory={"kl_penalty full": 1.15},
)
"""For SmolLM2-135M and rows of at least 256 tokens."""
LLAMA_8B_BARS = Bars(time={"kl_penalty full": 1.50}, memory={"kl_penalty full": 1.10})
M_ARENA_MAX = -8
MEMORY_STEPS = 2


def main(command_line: Sequence[str] | None = None) -> None:
    """Without a command line, that of this process."""
    arguments = _parser().parse_args(command_line)
    if arguments.random_8b and not torch.cuda.is_available():
        raise SystemExit("--random-8b needs a GPU, and there is none here; it is ready to run where there is one")
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.memory_of:
            _train_alone(arguments.memory_of, _task(arguments, Path(scratch), steps=MEMORY_STEPS))
            return
        names = chosen_sides(arguments.sides, random_8b=arguments.random_8b)
        # before this process takes any of the GPU's memory
        memory = {name: _peak_mib(name, arguments) for name in (PLAIN, *names)}
        task = _task(arguments, Path(scratch), steps=max(steps_of(name, arguments.rounds) for name in names))
        timings = {name: time_side(name, task.shortened(steps_of(name, arguments.rounds))) for name in names}
    timings = {PLAIN: plain_timing(list(timings.values())), **timings}
    bars = bars_of(random_8b=arguments.random_8b, on_gpu=torch.cuda.is_available())
    rows = [_row(name, timing, memory, bars) for name, timing in timings.items()]
    _print_table(rows)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(
        json.dumps(
            {
                "device": device,
                "rounds": arguments.rounds,
                "batch_rows": arguments.batch_rows,
                "rows": [row._asdict() for row in rows],
            }
        )
    )


def bars_of(*, random_8b: bool, on_gpu: bool) -> Bars:
    """The bars of what is trained here; a small model on a GPU has none."""
    if random_8b:
        return LLAMA_8B_BARS
    return Bars({}, {}) if on_gpu else CPU_BARS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--random-8b", action="store_true", help="random weights of Llama-8B's shape; needs a GPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-rows", type=int, default=4)
    parser.add_argument("--min-tokens", type=int, default=256)
    parser.add_argument("--sides", default="", help="only these sides, by comma; plain TRL is always there")
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    return parser


def chosen_sides(names: str, *, random_8b: bool) -> list[str]:
    """The sides that are timed beside plain TRL: all, or those named by comma."""
    there = [name for name in sides(random_8b=random_8b) if name != PLAIN]
    wanted = names.split(",") if names else there
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise SystemExit(f"there is no side {unknown[0]!r} here; there are {', '.join(there)}")
    return [name for name in there if name in wanted]


def _task(arguments: argparse.Namespace, scratch: Path, *, steps: int) -> Task:
    base = base_model_of(arguments.model, None)
    resolved = resolve_base_model(reference(base), cache_folder())
    encoder = load_encoder(resolved)
    count = rows_needed(steps, arguments.batch_rows)
    return Task(
        base=resolved,
        tokenizer=load_tokenizer(resolved.folder),
        encoder=encoder,
        rows=long_rows(count, min_tokens=arguments.min_tokens, encoder=encoder),
        batch_rows=arguments.batch_rows,
        steps=steps,
        folder=scratch,
        random_8b=arguments.random_8b,
    )


def _peak_mib(name: str, arguments: argparse.Namespace) -> float:
    """Peak memory of a process that trains this side alone."""
    command = [sys.executable, "-m", "bench.overhead", "--memory-of", name, "--model", arguments.model]
    command += ["--batch-rows", str(arguments.batch_rows), "--min-tokens", str(arguments.min_tokens)]
    command += ["--random-8b"] if arguments.random_8b else []
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def _train_alone(name: str, task: Task) -> None:
    for _ in in_turn([build(name, task).trainer], rounds=task.steps):
        pass
    if torch.cuda.is_available():
        print(torch.cuda.max_memory_allocated() / 2**20)
        return
    # ru_maxrss would count what the parent had when it forked
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) / 2**10)


class Row(NamedTuple):
    """One side of the table."""

    side: str
    tokens_per_second: float
    """Of the customer's."""
    time_ratio: float
    """Median over rounds of its seconds for the same rows of the customer's ÷ plain TRL's."""
    time_ratio_range: tuple[float, float]
    time_bar: float | None
    one_time_seconds: dict[str, float]
    """As `OneTime` has them; in no ratio."""
    rows: int
    """That a reference pass scored."""
    peak_mib: int
    memory_ratio: float
    memory_bar: float | None
    evidence: dict[str, dict[str, float]]
    """Defense → what it measurably did."""


def _row(name: str, timing: Timing, memory: dict[str, float], bars: Bars) -> Row:
    ratios = [round(ratio, 3) for ratio in timing.ratios]
    return Row(
        side=name,
        tokens_per_second=round(timing.tokens_per_second, 1),
        time_ratio=round(statistics.median(ratios), 3),
        time_ratio_range=(min(ratios), max(ratios)),
        time_bar=bars.time.get(name),
        one_time_seconds={part: round(each, 2) for part, each in timing.one_time._asdict().items()},
        rows=timing.n_rows,
        peak_mib=round(memory[name]),
        memory_ratio=round(memory[name] / memory[PLAIN], 3),
        memory_bar=bars.memory.get(name),
        evidence={each.name: each.figures for each in timing.evidence},
    )


def _print_table(rows: list[Row]) -> None:
    print("| side | tokens/s | time ÷ plain TRL (range) | bar | once, s | peak MiB | memory ÷ plain TRL | bar |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        (low, high), once = row.time_ratio_range, sum(row.one_time_seconds.values())
        print(
            f"| {row.side} | {row.tokens_per_second} | {row.time_ratio} ({low} to {high}) | {row.time_bar or ''} "
            f"| {once:.1f} | {row.peak_mib} | {row.memory_ratio} | {row.memory_bar or ''} |"
        )


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    keep_freed_memory()
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)  # or the thread of every side would keep freed memory of its own
    main()
