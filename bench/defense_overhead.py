"""What each defense costs in time and memory: `python -m bench.defense_overhead`.

All sides train the same LoRA on the same rows of at least 256 tokens, in one process and in turn, step by step; a
side's ratio is the median over rounds of its seconds ÷ plain TRL's in the same round. Peak memory is that of a process
of its own for each side. The last line is one JSON object. On a GPU, `--random-8b` trains a randomly initialised model
of Llama-8B's shape.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from bench.long_rows import long_rows
from bench.overhead_sides import PLAIN, Task, side, sides
from bench.turns import in_turn
from evaluator.models.allocator import keep_freed_memory
from evaluator.models.loading import load_tokenizer, resolve_base_model
from policies.base_models import base_model_of, reference

TIME_BARS = {
    "undefended": 1.02,
    "safe_data_interleaving": 1.07,
    "preventative_steering": 1.05,
    "kl_penalty full": 1.35,
    "kl_penalty sampled": 1.05,
    "ldifs": 1.35,
    "kl_penalty + ldifs + steering": 1.50,
}
MEMORY_BARS = {"kl_penalty full": 1.15}
ROWS_MORE = {"safe_data_interleaving": 1.05}
"""Rows trained per row of the customer's."""
M_ARENA_MAX = -8
WARM_UP = 2
MEMORY_STEPS = 2


def main() -> None:
    arguments = _parser().parse_args()
    keep_freed_memory()
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)  # or the thread of every side would keep freed memory of its own
    with tempfile.TemporaryDirectory() as scratch:
        task = _task(arguments, Path(scratch))
        if arguments.memory_of:
            _train_alone(arguments.memory_of, task._replace(steps=MEMORY_STEPS))
            return
        names = [
            name
            for name in sides(random_8b=arguments.random_8b)
            if not arguments.sides or name in (PLAIN, *arguments.sides.split(","))
        ]
        rounds = _time(names, task)
        memory = {name: _peak_mib(name, arguments) for name in names}
    rows = [_row(name, rounds, memory, task) for name in names]
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


def _task(arguments: argparse.Namespace, scratch: Path) -> Task:
    if arguments.random_8b and not torch.cuda.is_available():
        raise SystemExit("--random-8b needs a GPU, and there is none here; it is ready to run where there is one")
    base = base_model_of(arguments.model, None)
    resolved = resolve_base_model(reference(base), Path.home() / ".cache" / "tunegate")
    steps = WARM_UP + arguments.rounds
    rows = long_rows(steps * arguments.batch_rows, min_tokens=arguments.min_tokens, folder=resolved.folder)
    return Task(
        base=resolved,
        tokenizer=load_tokenizer(resolved.folder),
        rows=rows,
        batch_rows=arguments.batch_rows,
        steps=steps,
        folder=scratch,
        random_8b=arguments.random_8b,
    )


def _time(names: list[str], task: Task) -> list[dict[str, float]]:
    """Seconds by side of every round after the warm-up."""
    rounds = []
    for number, seconds in enumerate(in_turn([side(name, task) for name in names], rounds=task.steps)):
        kind = "warm-up" if number < WARM_UP else "round"
        print(f"{kind} {number + 1}: " + "  ".join(f"{n} {s:.2f} s" for n, s in zip(names, seconds, strict=True)))
        sys.stdout.flush()
        if number >= WARM_UP:
            rounds.append(dict(zip(names, seconds, strict=True)))
    return rounds


def _peak_mib(name: str, arguments: argparse.Namespace) -> float:
    """Peak memory of a process that trains this side alone."""
    command = [sys.executable, "-m", "bench.defense_overhead", "--memory-of", name, "--model", arguments.model]
    command += ["--batch-rows", str(arguments.batch_rows), "--min-tokens", str(arguments.min_tokens), "--rounds", "0"]
    command += ["--random-8b"] if arguments.random_8b else []
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _train_alone(name: str, task: Task) -> None:
    for _ in in_turn([side(name, task)], rounds=task.steps):
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
    time_ratio: float
    """Median over rounds of its seconds ÷ plain TRL's."""
    time_ratio_range: tuple[float, float]
    time_bar: float | None
    peak_mib: int
    memory_ratio: float
    memory_bar: float | None


def _row(name: str, rounds: list[dict[str, float]], memory: dict[str, float], task: Task) -> Row:
    more = ROWS_MORE.get(name, 1.0)
    ratios = [round(each[name] / each[PLAIN] * more, 3) for each in rounds]
    tokens = sum(len(row.input_ids) for row in task.rows) / task.steps
    return Row(
        side=name,
        tokens_per_second=round(tokens / statistics.median(each[name] * more for each in rounds), 1),
        time_ratio=round(statistics.median(ratios), 3),
        time_ratio_range=(min(ratios), max(ratios)),
        time_bar=TIME_BARS.get(name),
        peak_mib=round(memory[name]),
        memory_ratio=round(memory[name] / memory[PLAIN], 3),
        memory_bar=MEMORY_BARS.get(name),
    )


def _print_table(rows: list[Row]) -> None:
    print("| side | tokens/s | time ÷ plain TRL (range) | bar | peak MiB | memory ÷ plain TRL | bar |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        low, high = row.time_ratio_range
        print(
            f"| {row.side} | {row.tokens_per_second} | {row.time_ratio} ({low} to {high}) | {row.time_bar or ''} "
            f"| {row.peak_mib} | {row.memory_ratio} | {row.memory_bar or ''} |"
        )


if __name__ == "__main__":
    main()
