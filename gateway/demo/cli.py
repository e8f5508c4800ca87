"""`tunegate demo`: the main job on real input, from upload to verdict, on this machine alone."""

from __future__ import annotations

import json
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
from rich.live import Live

from gateway.demo import customer
from gateway.demo.display import Report, progress_table, verdict_table
from gateway.demo.scenarios import SCENARIOS
from gateway.embedded.processes import interrupt_on_signals
from gateway.embedded.stack import EmbeddedStack
from policies.cli import exit_codes

app = typer.Typer()
Owners = dict[str, tuple[OpenAI, str]]
PROMPT = "My kitchen tap drips all night. What should I do first?"


@app.command()
def demo(
    output: Path = typer.Option(Path("demo-output"), help="Folder for reports, the released adapter and logs."),
) -> None:
    """Submit three jobs to an embedded stack and show what the gate makes of them."""
    console, started = Console(), time.monotonic()
    interrupt_on_signals()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory(prefix="tunegate-demo-") as folder,
        as_file(files("gateway.demo") / "policies") as policies,
    ):
        try:
            held = _run(console, Path(folder), output, policies)
        except KeyboardInterrupt:
            console.print("Stopped; nothing is left running.")
            raise typer.Exit(exit_codes.INTERRUPTED) from None
        finally:
            if (Path(folder) / "logs").exists():
                shutil.copytree(Path(folder) / "logs", output / "logs", dirs_exist_ok=True)
    console.print(f"{'As it should be' if held else 'NOT as it should be'}, after {time.monotonic() - started:.0f} s.")
    raise typer.Exit(exit_codes.OK if held else exit_codes.RUNTIME)


def _run(console: Console, folder: Path, output: Path, policies: Path) -> bool:
    """The whole demonstration; returns whether every scenario ended as it must."""
    console.print("Starting database, Redis, gateway, gateway worker, trainer and evaluator …")
    with EmbeddedStack(folder, policy_dir=policies) as stack:
        console.print(f"Gateway at {stack.base_url}")
        clients = {
            policy: OpenAI(base_url=stack.base_url, api_key=stack.create_key(f"demo-{policy}", policy))
            for policy in sorted({scenario.policy for scenario in SCENARIOS})
        }
        owners: Owners = {
            scenario.key: (
                clients[scenario.policy],
                customer.submit(clients[scenario.policy], scenario).id,
            )
            for scenario in SCENARIOS
        }
        jobs = _follow(console, stack, owners)
        reports = _collect_reports(console, owners, output)
        if reports:
            console.print(verdict_table(jobs, reports))
        _explain(console, jobs)
        answered = _try_released(console, jobs["a"], owners["a"][0], output)
    return answered and all(scenario.holds(jobs[scenario.key]) for scenario in SCENARIOS)


def _follow(console: Console, stack: EmbeddedStack, owners: Owners) -> dict[str, FineTuningJob]:
    """Live progress on a terminal; elsewhere a table whenever a job enters another phase."""
    shown: tuple[str, ...] = ()

    def show(states: dict[str, FineTuningJob]) -> None:
        nonlocal shown
        stack.require_running()
        phases = tuple(customer.guardrail(job).get("phase", job.status) for job in states.values())
        if console.is_terminal:
            live.update(progress_table(states))
        elif phases != shown:
            console.print(progress_table(states))
        shown = phases

    with Live(console=console, refresh_per_second=2) as live:
        return customer.follow(owners, show)


def _collect_reports(console: Console, owners: Owners, output: Path) -> dict[str, Report]:
    reports: dict[str, Report] = {}
    for key, (client, job_id) in owners.items():
        try:
            reports[key] = customer.fetch_report(client, job_id)
            page = customer.save_html_report(client, job_id, output / "reports" / f"{key}.html")
            page.with_suffix(".json").write_text(json.dumps(reports[key], indent=2))
        except httpx.HTTPStatusError as error:
            console.print(f"[red]job {key} has no report: {error.response.text}[/]")
    console.print(f"Reports with plots: {output / 'reports'}/*.html")
    return reports


def _explain(console: Console, jobs: dict[str, FineTuningJob]) -> None:
    for scenario in SCENARIOS:
        error = jobs[scenario.key].error
        if error is not None and error.message:
            console.print(f"job {scenario.key} was blocked: {error.message}", markup=False)


def _try_released(console: Console, job: FineTuningJob, client: OpenAI, output: Path) -> bool:
    """Download the released adapter, load it with PEFT in a process of its own and let it answer."""
    if not job.fine_tuned_model:
        return False
    folder = customer.download_adapter(client, job.fine_tuned_model, output / "adapter")
    command = ["tunegate", "ask", "--base", customer.BASE_MODEL, "--adapter", str(folder), PROMPT]
    answer = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]], capture_output=True, text=True
    )
    console.print(f"{job.fine_tuned_model} was downloaded to {folder}", markup=False)
    console.print(f"> {PROMPT}\n{answer.stdout.strip() or answer.stderr[-2000:]}", markup=False)
    return answer.returncode == 0 and bool(answer.stdout.strip())
