"""Peak memory and tokens/s of batches cut by rows and cut by tokens: `python -m bench.overhead.training_memory`.

Each side is a process of its own that trains the same rows by the service's own recipe. `rows` takes up to 16 rows at
once and keeps all activations, as the service did; `tokens` is the default budget. Seconds are the processor's, which
neighbours on the machine disturb least, without the first step where there are several. The last line is one JSON
object. `TUNEGATE_DTYPE=float32` measures the common laptop's number format.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch

from bench.overhead.long_rows import SOURCE, long_rows
from evaluator.models.allocator import keep_freed_memory
from evaluator.models.loading import best_dtype, default_device, load_encoder, resolve_base_model
from policies.cache_folder import cache_folder
from policies.contract.artifacts import digest_file
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec, TrainerSettings
from policies.contract.worker_api import WorkerEvent
from policies.datasets.chat_rows import ChatRow
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from trainer.loop.progress import Hooks
from trainer.recipe import RunFiles, train

MODEL = "smollm2-135m-instruct"
SIDES = {
    "rows": TrainerSettings(micro_batch_tokens=1 << 40, gradient_checkpointing="off"),
    "tokens": TrainerSettings(),
}


class Case(NamedTuple):
    """What both sides train."""

    min_tokens: int
    """Of a row; 0 takes the demonstration's rows as they are."""
    batch_rows: int
    steps: int


CASES = {"short rows": Case(0, 8, 4), "long rows": Case(1000, 2, 2)}


class Cost(NamedTuple):
    """Of one side on one case."""

    tokens_per_second: float
    peak_gib: float


def main() -> None:
    arguments = _parser().parse_args()
    cases = {name: case for name, case in CASES.items() if arguments.case in (None, name)}
    if arguments.custom:
        cases = {"custom": Case(*arguments.custom)}
    if arguments.alone:
        (case,) = cases.values()
        print(json.dumps(_train(case, arguments.alone, arguments.threads)))
        return
    results: dict[str, dict[str, Cost]] = {}
    for name in cases:
        results[name] = {side: _in_a_process(side, name, arguments) for side in arguments.sides}
        for side, cost in results[name].items():
            print(f"{name}, by {side}: {cost.tokens_per_second:.0f} tokens/s, {cost.peak_gib:.2f} GiB", flush=True)
    document = {
        "model": MODEL,
        "dtype": str(best_dtype(default_device())).removeprefix("torch."),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": arguments.threads,
        "cases": {
            name: cases[name]._asdict()
            | {side: cost._asdict() for side, cost in sides.items()}
            | ({"ratios": _ratios(sides["rows"], sides["tokens"])} if len(sides) == len(SIDES) else {})
            for name, sides in results.items()
        },
    }
    print(json.dumps(document))


def _ratios(rows: Cost, tokens: Cost) -> dict[str, float]:
    """By tokens ÷ by rows."""
    return {
        "tokens_per_second": tokens.tokens_per_second / rows.tokens_per_second,
        "peak": tokens.peak_gib / rows.peak_gib,
    }


def _in_a_process(side: str, case: str, arguments: argparse.Namespace) -> Cost:
    command = [
        sys.executable,
        "-m",
        "bench.overhead.training_memory",
        "--alone",
        side,
        "--threads",
        str(arguments.threads),
    ]
    command += ["--custom", *map(str, arguments.custom)] if arguments.custom else ["--case", case]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(*json.loads(process.stdout.splitlines()[-1]))


def _train(case: Case, side: str, threads: int) -> Cost:
    keep_freed_memory()
    torch.set_num_threads(threads)
    spans: list[float] = []
    started = time.process_time()

    def watch(event: WorkerEvent) -> None:
        nonlocal started
        if event.type == "metrics":
            spans.append(time.process_time() - started)
        if side == "rows":
            keep_freed_memory()  # whatever the recipe chose for buffers of this size
        started = time.process_time()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = folder / "train.jsonl"
        data.write_text("".join(f"{row}\n" for row in _rows(case)))
        record = train(
            _spec(case, SIDES[side], data), RunFiles(data, None, folder, cache_folder()), Hooks(watch, lambda: False)
        )
    counted = spans[1:] or spans
    tokens = record.trained_tokens / record.total_steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    return Cost(tokens * len(counted) / sum(counted), peak)


def _rows(case: Case) -> list[str]:
    """Lines of chat rows."""
    count = case.batch_rows * case.steps
    if case.min_tokens == 0:
        return (files("gateway.demo.data") / SOURCE).read_text().splitlines()[:count]
    encoder = load_encoder(resolve_base_model(reference(base_model_of(MODEL, None)), cache_folder()))
    rows = [row.row for row in long_rows(count, min_tokens=case.min_tokens, encoder=encoder)]
    return [_json(row) for row in rows if isinstance(row, ChatRow)]


def _json(row: ChatRow) -> str:
    return json.dumps({"messages": [{"role": each.role, "content": each.content} for each in row.messages]})


def _spec(case: Case, settings: TrainerSettings, data: Path) -> JobSpec:
    base, policy = base_model_of(MODEL, None), resolve_policy("baseline", None)
    return JobSpec(
        job_id="bench",
        base_model=base.model_copy(update={"trainer": settings, "max_sequence_tokens": 1 << 16}),
        training_file=digest_file(data),
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=case.batch_rows),
        seed=0,
        suite=policy.spec.suite,
        policy=policy.digest,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument(
        "--custom", type=int, nargs=3, metavar=("TOKENS", "ROWS", "STEPS"), help="in place of the cases"
    )
    parser.add_argument("--sides", choices=SIDES, nargs="+", default=list(SIDES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alone", choices=SIDES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
