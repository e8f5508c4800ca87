"""Are the demonstration's verdicts clear ones? `python -m bench.demo --results bench/results/demo_seeds`.

Trains and judges the three jobs of `make demo` once a seed, on the same files, with the same hyperparameters, defenses,
suite and limits. Every run has a process of its own, so that memory does not grow from run to run, and is cached in the
results folder, so that an interrupted bench goes on where it was. Calls with other `--jobs` and the same `--results`
may run side by side. `table.md` and `results.json` are written to the results folder. The exit code is 3 where a job
does not end as it must in nine runs of ten, or ends the opposite way in any.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.verdict_table.runs import Assignment, VerdictResult, VerdictRun
from evaluator.models.base_models import resolve_base_model
from gateway.demo.customer import BASE_MODEL, METHOD
from gateway.demo.scenarios import SCENARIOS, Scenario
from policies.atomic_files import write_atomically
from policies.cache_folder import cache_folder
from policies.cli.exit_codes import of_error
from policies.contract.artifacts import Digest, digest_file
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.release import Decision
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from policies.errors import TunegateError
from trainer.qualification.cached_runs import Launch, RunFailure, execute, launch_module

DEMO = Path(__file__).parents[2] / "gateway" / "demo"
MARGIN = "emergent_misalignment_preference.margin"
EXPECTED = {"released": Decision.RELEASE, "blocked": Decision.REJECT}
OPPOSITE = {"released": Decision.REJECT, "blocked": Decision.RELEASE}
LEAST_SHARE = 0.9


class Run(NamedTuple):
    """One job of the demonstration under one seed."""

    scenario: Scenario
    seed: int
    outcome: VerdictResult | RunFailure

    @property
    def decision(self) -> Decision | None:
        return None if isinstance(self.outcome, RunFailure) else self.outcome.decision.decision


class Shop(NamedTuple):
    """Where the runs work."""

    base: BaseModelSpec
    base_digest: Digest
    results: Path
    cache_dir: Path
    launch: Launch


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own: torch and the C library would keep memory from run to run."""
    launch_module("bench.verdict_table.runs", folder, {})


def run_scenario(scenario: Scenario, seed: int, shop: Shop) -> Run:
    """The verdict on one job, from its folder or from new work."""
    policy_file = DEMO / "policies" / f"{scenario.policy}.yaml"
    policy = resolve_policy(str(policy_file))
    training = DEMO / "data" / scenario.training_file
    job = JobSpec(
        job_id="bench",
        base_model=shop.base,
        training_file=digest_file(training),
        hyperparameters=Hyperparameters.model_validate(METHOD["supervised"]["hyperparameters"]),
        seed=seed,
        defenses=policy.spec.defenses,
        suite=policy.spec.suite,
        policy=policy.digest,
    )
    run = VerdictRun(job=job, noise=None, policy=policy.digest, base_model=shop.base_digest)
    assignment = Assignment(
        run=run,
        policy_name=str(policy_file),
        training_file=str(training),
        cache_dir=str(shop.cache_dir.resolve()),
        parent_pid=os.getpid(),
    )
    folder = shop.results / "runs" / run.digest[7:23]
    return Run(scenario, seed, execute(folder, assignment, run=run.digest, kind=VerdictResult, launch=shop.launch))


def markdown(runs: Sequence[Run], title: str) -> str:
    """Counts a job, then a line a run."""
    lines = [
        f"# The demonstration's verdicts over seeds, {title}\n\n",
        "| job | must be | released | rejected | undecided | no adapter |\n",
    ]
    lines.append("|---|---|---:|---:|---:|---:|\n")
    for scenario, decisions in by_scenario(runs).items():
        counts = [decisions.count(kind) for kind in (Decision.RELEASE, Decision.REJECT, Decision.INCONCLUSIVE, None)]
        lines.append(f"| {scenario.key}: {scenario.title} | {scenario.must_end} | {' | '.join(map(str, counts))} |\n")
    lines.append("\n| seed | job | verdict | margin: change, nats/token | settled by |\n|---:|---|---|---|---|\n")
    lines += [_line(run) for run in sorted(runs, key=lambda run: (run.seed, run.scenario.key))]
    return "".join(lines)


def by_scenario(runs: Sequence[Run]) -> dict[Scenario, list[Decision | None]]:
    return {each: [run.decision for run in runs if run.scenario == each] for each in SCENARIOS}


def are_clear(runs: Sequence[Run]) -> bool:
    """Whether each job with a certain end has it nearly always, and never the opposite one."""
    for scenario, decisions in by_scenario(runs).items():
        if scenario.must_end not in EXPECTED or not decisions:
            continue
        n_expected = decisions.count(EXPECTED[scenario.must_end])
        if n_expected < LEAST_SHARE * len(decisions) or OPPOSITE[scenario.must_end] in decisions:
            return False
    return True


def _line(run: Run) -> str:
    outcome = run.outcome
    if isinstance(outcome, RunFailure):
        return f"| {run.seed} | {run.scenario.key} | no adapter | – | {outcome.message} |\n"
    measured = outcome.report.measurement(MARGIN)
    change = measured.difference if measured else None
    figure = "–" if change is None else f"{change.value:+.3f} [{change.interval.low:+.3f}, {change.interval.high:+.3f}]"
    decision = outcome.decision
    settling = [r.rule for r in decision.results if r.mode == "enforce" and r.outcome in _settling(decision.decision)]
    verdict = decision.decision.value
    return f"| {run.seed} | {run.scenario.key} | {verdict} | {figure} | {', '.join(settling) or 'all rules'} |\n"


def _settling(decision: Decision) -> tuple[str, ...]:
    return {Decision.RELEASE: (), Decision.REJECT: ("fail",)}.get(decision, ("inconclusive",))


def _document(run: Run) -> dict[str, object]:
    outcome = run.outcome
    found: dict[str, object] = {"job": run.scenario.key, "seed": run.seed}
    if isinstance(outcome, RunFailure):
        return found | {"error": outcome.message}
    return found | {
        "decision": outcome.decision.decision.value,
        "rules": [
            result.model_dump(mode="json", include={"rule", "mode", "outcome", "limit", "bound", "unit", "judged"})
            for result in outcome.decision.results
        ],
        "train_loss": outcome.train_loss,
        "training_seconds": outcome.training_seconds,
        "evaluation_seconds": outcome.evaluation_seconds,
    }


def main(
    results: Annotated[Path, typer.Option(help="Folder of table, JSON and cached runs.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from 0.")] = 10,
    jobs: Annotated[str, typer.Option(help="Keys of the demonstration's jobs.")] = "abc",
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = cache_folder(),
) -> None:
    """Train and judge the demonstration's jobs over seeds."""
    base = base_model_of(BASE_MODEL, None)
    shop = Shop(base, resolve_base_model(reference(base), cache_dir).digest, results, cache_dir, launch_child)
    runs = []
    for seed in range(seeds):
        for scenario in (each for each in SCENARIOS if each.key in jobs):
            runs.append(run_scenario(scenario, seed, shop))
            print(_line(runs[-1]), end="", file=sys.stderr, flush=True)
    table = markdown(runs, f"{base.name}, seeds 0 to {seeds - 1}")
    if jobs == "abc":
        write_atomically(results / "table.md", table.encode())
        write_atomically(results / "results.json", json.dumps([_document(run) for run in runs]).encode() + b"\n")
    print(table)
    if not are_clear(runs):
        raise typer.Exit(3)


if __name__ == "__main__":
    try:
        typer.run(main)
    except TunegateError as error:
        print(error, file=sys.stderr)
        sys.exit(of_error(error))
