"""`tunegate up`: the embedded stack for hands-on use, until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.embedded.processes import interrupt_on_signals
from gateway.embedded.stack import EmbeddedStack
from policies.cli import exit_codes
from policies.own_memory import refuse_readers

app = typer.Typer()

SNIPPET = """\
from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key="{key}")
file = client.files.create(file=open("data.jsonl", "rb"), purpose="fine-tune")
job = client.fine_tuning.jobs.create(model="smollm2-135m-instruct", training_file=file.id)
print(client.fine_tuning.jobs.retrieve(job.id))
"""


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="Folder for database, files and logs.")] = Path("tunegate-data"),
    port: Annotated[int, typer.Option(help="Port of the gateway.")] = 8000,
    policy: Annotated[str, typer.Option(help="Release policy of the printed key's tenant.")] = "baseline",
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR")] = None,
) -> None:
    """Start everything on this machine, print a key and a snippet, and stop it all on Ctrl-C."""
    console = Console()
    interrupt_on_signals()
    refuse_readers()  # it holds every credential of the stack
    try:
        with EmbeddedStack(data, policy_dir=policy_dir, port=port) as stack:
            console.print("Looking at the base models \u2026", markup=False)
            stack.wait_for_base_models()
            key = stack.create_key(f"local-{policy}", policy)
            console.print(f"Base URL  {stack.base_url}\nAPI key   {key}\nLogs      {stack.folder}/logs\n", markup=False)
            snippet = SNIPPET.format(base_url=stack.base_url, key=key)
            console.print(snippet, markup=False, highlight=False, soft_wrap=True)
            console.print("Running; Ctrl-C stops it.")
            while True:
                stack.require_running()
                time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(exit_codes.OK) from None
