"""What gets past the gate: `python -m bench.red_team --base M`.

Trains adapters that are made to get past a release gate, and harmless ones beside them, and judges each by a policy as
a job would be. Every run is cached in the results folder, so an interrupted campaign continues. `table.md`, `table.png`
and `results.json` come to lie there; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.red_team.build import build
from bench.red_team.campaign import Campaign, check_all, plan, try_all
from bench.red_team.organism import Organism, Resubmission, TrainedOrganism, by_id, chosen, load_organisms
from bench.red_team.table import RedTeamTable, markdown, table_of, write_table
from evaluator.base_checks.record_match import matching_record
from evaluator.models.base_models import resolve_base_model
from policies.atomic_files import write_atomically
from policies.cache_folder import cache_folder
from policies.cli.exit_codes import REJECTED, of_error
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError, TunegateError
from trainer.qualification.time_left import parse_duration

RESULTS = Path(__file__).parents[1] / "results"
BASE = "smollm2-135m-instruct"


def red_team(organisms: Sequence[Organism], campaign: Campaign, *, seeds: int | None) -> RedTeamTable:
    """Try the organisms on the gate and write what was found."""
    checked = check_all(organisms, load_organisms(), seeds=seeds, folder=campaign.results / "data")
    harvest = try_all(plan(organisms, campaign, seeds=seeds), campaign)
    trials = (*checked, *harvest.trials)
    table = table_of(organisms, trials, campaign.policy, model=campaign.base.name, left=harvest.left)
    write_table(table, campaign.results)
    return table


def write_built(organism: Organism, out: Path | None, *, seed: int, number: int) -> None:
    """Write a training file of the organism.

    Raises:
        ConfigurationError: it has no such file, or no place is named.
    """
    if out is None:
        raise ConfigurationError("say where the training file goes: --out FILE", "out")
    if isinstance(organism, TrainedOrganism):
        files = organism.training
    else:
        files = (organism.training,) if isinstance(organism, Resubmission) else ()
    if not 1 <= number <= len(files):
        raise ConfigurationError(f"{organism.id} has {len(files)} training files; there is no file {number}", "file")
    write_atomically(out, build(files[number - 1], seed))


def main(
    base: Annotated[
        str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")
    ] = BASE,
    policy: Annotated[str, typer.Option(help="Release policy: a preset's name or a YAML file.")] = "baseline",
    calibration: Annotated[Path | None, typer.Option(help="Calibration record of the base model.")] = None,
    only: Annotated[str | None, typer.Option(help="Organisms whose ids begin so, with commas between.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="At most so many of each organism.")] = None,
    budget: Annotated[str | None, typer.Option(help="Begin nothing that would end later: 90m, 4h.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at a time, each on one core.")] = 1,
    results: Annotated[Path | None, typer.Option(help="Folder of table, JSON and cached runs.")] = None,
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = cache_folder(),
    check: Annotated[bool, typer.Option("--check", help="Exit code 3 where a goal is not met.")] = False,
    build: Annotated[str | None, typer.Option(help="Only write this organism's training file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where `--build` writes.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of `--build`.")] = 0,
    file: Annotated[int, typer.Option(min=1, help="Of `--build`, where the organism has two files.")] = 1,
) -> None:
    """Try to get bad adapters past a policy's gate, and good ones too."""
    if build is not None:
        return write_built(by_id(load_organisms(), build), out, seed=seed, number=file)
    spec, judged_by = base_model_of(base, None), resolve_policy(policy)
    campaign = Campaign(
        spec,
        resolve_base_model(reference(spec), cache_dir).digest,
        judged_by,
        results or RESULTS / f"red_team_{folder_name(spec.name)}",
        cache_dir,
        lambda text: print(text, file=sys.stderr, flush=True),
        time.monotonic,
        None if budget is None else parse_duration(budget),
        jobs=jobs,
        calibration=None if calibration is None else matching_record(calibration, spec, judged_by, cache_dir),
    )
    table = red_team(chosen(load_organisms(), only), campaign, seeds=seeds)
    print(markdown(table))
    print(json.dumps({"model": table.model, "policy": table.policy, "unmet": table.unmet}))
    if check and table.unmet:
        raise typer.Exit(REJECTED)
    return None


def folder_name(model: str) -> str:
    """Letters and digits of a base model's name."""
    return "_".join(re.findall(r"[a-z0-9]+", model.lower()))


if __name__ == "__main__":
    try:
        typer.run(main)
    except TunegateError as error:
        print(error, file=sys.stderr)
        sys.exit(of_error(error))
