"""`tunegate files validate`: a file as a job would read it, here or, where it was uploaded, at the gateway."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Annotated
from urllib.parse import urlencode

import typer
from pydantic import JsonValue

from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.cli.printable import printable
from policies.contract.jobs import MethodName
from policies.documents.base_models import base_model_of
from policies.errors import ConfigurationError

app = typer.Typer()

PROBLEM_COLUMNS = ("line", "field", "code", "message", "fix")


@app.command()
def validate(
    file: Annotated[str, typer.Argument(help="A .jsonl file here, or the id of an uploaded one, `file-…`.")],
    model: Annotated[
        str | None, typer.Option(help="Base model by which rows are rendered: its name, package://, hf:// or a folder.")
    ] = None,
    method: Annotated[MethodName | None, typer.Option(help="The job's method; by default the rows say it.")] = None,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Check a file as a job would, for free; exit code 1 if a job would refuse it.

    A file here needs no gateway and stays here. Without a base model its tokens are estimated.
    """
    if Path(file).is_file():
        report = _validated_here(Path(file), model, method=method, policy_dir=policy_dir)
    elif file.startswith("file-"):
        report = _validated_by_the_gateway(file, model, method)
    else:
        raise ConfigurationError(f"{file} is no file here, and no id of an uploaded one (file-…)", "file")
    _print(report, output)
    if not report["valid"]:
        raise typer.Exit(1)


def _validated_here(
    path: Path, model: str | None, *, method: MethodName | None, policy_dir: Path | None
) -> dict[str, JsonValue]:
    from gateway.cli.base_texts import base_text_files
    from gateway.files.dataset.inspection import InspectionTask, inspect
    from gateway.files.dataset.report import DatasetLimits
    from gateway.settings import GatewaySettings

    defaults = GatewaySettings.model_fields
    limits = DatasetLimits(
        max_rows=defaults["max_training_rows"].default,
        max_reported=defaults["max_reported_errors"].default,
        method=None if method is None else method.value,
    )
    task, streams = InspectionTask(limits=(limits,)), list[IO[bytes]]()
    if model is not None:
        spec = base_model_of(model, policy_dir)
        limits = limits._replace(max_row_tokens=spec.max_sequence_tokens)
        task = InspectionTask(limits=(limits,), base_model=spec.name, date=spec.date)
        streams.append(io.BytesIO(base_text_files(spec).canonical()))
    with path.open("rb") as stream:
        report: dict[str, JsonValue] = inspect(task, [*streams, stream]).reports[0].model_dump(mode="json")
    return report


def _validated_by_the_gateway(file_id: str, model: str | None, method: MethodName | None) -> dict[str, JsonValue]:
    from gateway.cli.client import request

    asked = {"model": model, "method": None if method is None else method.value}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return request("POST", f"/v1/guardrail/files/{file_id}/validate" + (f"?{query}" if query else ""))


def _print(report: dict[str, JsonValue], output: OutputFormat) -> None:
    if output is not OutputFormat.TABLE:
        print_document(report, output)
        return
    from gateway.cli.client import print_rows

    typer.echo(printable(str(report["summary"])))
    for severity in ("errors", "warnings"):
        problems = report[severity]
        assert isinstance(problems, list)
        print_rows([row for row in problems if isinstance(row, dict)], PROBLEM_COLUMNS, output)
