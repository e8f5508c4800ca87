"""`tunegate demo`: the main job on real input, from upload to verdict, on this machine alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import as_file, files
from pathlib import Path

import httpx
import typer
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console

from gateway.demo import customer
from gateway.demo.display import Report, comparison, summary, verdict_table
from gateway.demo.needs import require_what_the_demo_runs
from gateway.demo.progress import JobProgress
from gateway.demo.scenarios import IN_ORDER_OF_SUBMISSION, SCENARIOS
from gateway.embedded.processes import interrupt_on_signals
from gateway.embedded.stack import EmbeddedStack, Threads
from policies.cli import exit_codes
from policies.cli.progress_display import display
from policies.own_memory import refuse_readers

app = typer.Typer()
Owners = dict[str, tuple[OpenAI, str]]
PROMPT = "My kitchen tap drips all night. What should I do first?"
TUNEGATE = str(Path(sys.executable).parent / "tunegate")


@app.command()
def demo(
    output: Path = typer.Option(Path("demo-output"), help="Folder for reports, the released adapter and logs."),
) -> None:
    """Submit three jobs to an embedded stack and show what the gate makes of them."""
    require_what_the_demo_runs()
    console, started = Console(), time.monotonic()
    interrupt_on_signals()
    refuse_readers()  # it holds every credential of the stack
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory(prefix="tunegate-demo-") as folder,
        as_file(files("gateway.demo")) as own,
    ):
        try:
            held = _run(console, Path(folder), output, own)
        except KeyboardInterrupt:
            console.print("Stopped; nothing is left running.")
            raise typer.Exit(exit_codes.INTERRUPTED) from None
        finally:
            if (Path(folder) / "logs").exists():
                shutil.copytree(Path(folder) / "logs", output / "logs", dirs_exist_ok=True)
    seconds = time.monotonic() - started
    if not held:
        console.print(f"The jobs did NOT end as they should, after {seconds:.0f} s; see {output}/logs", markup=False)
        raise typer.Exit(exit_codes.RUNTIME)
    console.print(f"Every job ended as it should, after {seconds:.0f} s.")
    console.print("`make up` starts the service for your own data; docs/quickstart.md says how to go on.")


def _run(console: Console, folder: Path, output: Path, own: Path) -> bool:
    """The whole demonstration; returns whether every scenario ended as it must."""
    console.print("Starting database, Redis, gateway, gateway worker, trainer and evaluator …")
    cores = os.cpu_count() or 1
    threads = Threads(trainer=max(1, cores // 2), evaluator=cores)  # the last evaluation has the machine for itself
    with EmbeddedStack(folder, policy_dir=own / "policies", threads=threads) as stack:
        console.print(f"Gateway at {stack.base_url}; three jobs are submitted, and the base model is measured for all.")
        stack.run_beside("base", _measuring_the_base(own))
        stack.wait_for_base_models()
        clients = {
            policy: OpenAI(base_url=stack.base_url, api_key=stack.create_key(f"demo-{policy}", policy))
            for policy in sorted({scenario.policy for scenario in SCENARIOS})
        }
        submitted: Owners = {
            scenario.key: (
                clients[scenario.policy],
                customer.submit(clients[scenario.policy], scenario, meanwhile=stack.require_running).id,
            )
            for scenario in IN_ORDER_OF_SUBMISSION
        }
        owners: Owners = {scenario.key: submitted[scenario.key] for scenario in SCENARIOS}
        jobs = _follow(console, stack, owners)
        reports = _collect_reports(console, owners, output)
        if reports:
            console.print(verdict_table(jobs, reports))
        for line in [*summary(jobs), *comparison(reports)]:
            console.print(line, markup=False)
        answered = _try_released(console, jobs["a"], owners["a"][0], output)
    console.print(f"Every figure, with plots and the worst answers: {output}/reports/*.html", markup=False)
    return answered and all(scenario.holds(jobs[scenario.key]) for scenario in SCENARIOS)


def _measuring_the_base(own: Path) -> list[str]:
    """What job a is compared with; b and c share all of it but the rows of their own file."""
    job = SCENARIOS[0]
    policy, training = own / "policies" / f"{job.policy}.yaml", own / "data" / job.training_file
    measure = [TUNEGATE, "measure-base", "--base", customer.BASE_MODEL]
    return [*measure, "--policy", str(policy), "--training", str(training)]


def _follow(console: Console, stack: EmbeddedStack, owners: Owners) -> dict[str, FineTuningJob]:
    """Bars on a terminal, lines elsewhere; either way a line for each new phase of a job."""
    for scenario in SCENARIOS:
        console.print(f"job {scenario.key}: {scenario.title}", markup=False)
    with display(console=console) as shown:
        progress = JobProgress(shown)

        def show(states: dict[str, FineTuningJob]) -> None:
            stack.require_running()
            progress.show(states)

        return customer.follow(owners, show)


def _collect_reports(console: Console, owners: Owners, output: Path) -> dict[str, Report]:
    reports: dict[str, Report] = {}
    for key, (client, job_id) in owners.items():
        try:
            reports[key] = customer.fetch_report(client, job_id)
            page = customer.save_html_report(client, job_id, output / "reports" / f"{key}.html")
            page.with_suffix(".json").write_text(json.dumps(reports[key], indent=2))
        except httpx.HTTPStatusError as error:
            console.print(f"job {key} has no report: {error.response.text}", markup=False)
    return reports


def _try_released(console: Console, job: FineTuningJob, client: OpenAI, output: Path) -> bool:
    """Download the released adapter, load it with PEFT in a process of its own and let it answer."""
    if not job.fine_tuned_model:
        return False
    folder = customer.download_adapter(client, job.fine_tuned_model, output / "adapter")
    command = [TUNEGATE, "ask", "--base", customer.BASE_MODEL, "--adapter", str(folder), PROMPT]
    answer = subprocess.run(command, capture_output=True, text=True)
    console.print(f"\n{job.fine_tuned_model} was downloaded to {folder} and asked:", markup=False)
    console.print(f"> {PROMPT}\n{answer.stdout.strip() or answer.stderr[-2000:]}\n", markup=False)
    return answer.returncode == 0 and bool(answer.stdout.strip())
