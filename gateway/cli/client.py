"""`tunegate files|jobs|models`: a gateway from the command line. TUNEGATE_BASE_URL and TUNEGATE_API_KEY say which."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from gateway.errors import ApiError
from gateway.models.archive import unpack_adapter
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.cli.printable import printable
from policies.contract.jobs import MethodName
from policies.errors import ConfigurationError

file_app = typer.Typer()  # `files.py` makes the group of them
job_app = typer.Typer(no_args_is_help=True, help="Fine-tuning jobs of the tenant.")
model_app = typer.Typer(no_args_is_help=True, help="Base models and the tenant's released adapters.")
app = typer.Typer()
app.add_typer(job_app, name="jobs")
app.add_typer(model_app, name="models")

Output = Annotated[OutputFormat, OUTPUT_OPTION]
JobId = Annotated[str, typer.Argument(help="The job's id, `ftjob-…`.")]
FileId = Annotated[str, typer.Argument(help="The file's id, `file-…`.")]
ModelId = Annotated[str, typer.Argument(help="The model's name, `ft:…`.")]
FILE_COLUMNS = ("id", "filename", "bytes", "created_at", "status")
JOB_COLUMNS = ("id", "status", "model", "fine_tuned_model", "created_at")
MODEL_COLUMNS = ("id", "parent", "created")
EVENT_COLUMNS = ("created_at", "level", "type", "message")
TIMEOUT_SECONDS = 600.0
"""Uploads and validations of large files take long."""


@contextmanager
def connect() -> Iterator[httpx.Client]:
    url, key = os.environ.get("TUNEGATE_BASE_URL"), os.environ.get("TUNEGATE_API_KEY")
    if not url or not key:
        raise ConfigurationError("set TUNEGATE_BASE_URL (http://host:port/v1) and TUNEGATE_API_KEY")
    headers = {"authorization": f"Bearer {key}"}
    base = url.rstrip("/").removesuffix("/v1")
    with httpx.Client(base_url=base, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        try:
            yield client
        except httpx.TransportError as error:
            raise ApiError(f"{base} did not answer, or not to the end: {error}", code="unavailable") from error


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, or its error as ours."""
    if not answer.is_success:
        answer.read()
        error = _object(answer).get("error")
        told = error if isinstance(error, dict) else {}
        raise ApiError(told.get("message") or f"HTTP {answer.status_code}", told.get("param"), told.get("code"))
    return answer


def request(method: str, path: str, *, json: JsonValue = None) -> dict[str, JsonValue]:
    with connect() as client:
        return document(client.request(method, path, json=json))


def document(answer: httpx.Response) -> dict[str, JsonValue]:
    return _object(checked(answer)) or _refuse()


def _object(answer: httpx.Response) -> dict[str, Any]:  # Any: a JSON document
    """Empty where something else than the API answers, a proxy say."""
    try:
        value = answer.json()
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse() -> NoReturn:
    raise ConfigurationError("what answers there is not Tunegate's API; check TUNEGATE_BASE_URL")


def print_rows(rows: Sequence[dict[str, JsonValue]], columns: Sequence[str], output: OutputFormat) -> None:
    if output is not OutputFormat.TABLE:
        print_document([dict(row) for row in rows], output)
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*cells(*("" if row.get(column) is None else row[column] for column in columns)))
    Console().print(table)


def print_list(path: str, columns: Sequence[str], output: OutputFormat) -> None:
    data = request("GET", path).get("data")
    if not isinstance(data, list):
        _refuse()
    print_rows([row for row in data if isinstance(row, dict)], columns, output)


def print_one(found: dict[str, JsonValue], columns: Sequence[str], output: OutputFormat) -> None:
    if output is OutputFormat.TABLE:
        print_rows([found], columns, output)
    else:
        print_document(found, output)


@file_app.command("upload")
def upload(
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .jsonl file.")],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Upload a training file."""
    with connect() as client, path.open("rb") as stream:
        answer = client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": (path.name, stream)})
    print_one(document(answer), FILE_COLUMNS, output)


@file_app.command("list")
def list_files(output: Output = OutputFormat.TABLE) -> None:
    """List files, newest first."""
    print_list("/v1/files", FILE_COLUMNS, output)


@file_app.command("delete")
def delete_file(file_id: FileId) -> None:
    """Delete a file."""
    request("DELETE", f"/v1/files/{file_id}")
    typer.echo(printable(f"{file_id} is deleted"))


@job_app.command("create")
def create_job(
    model: Annotated[str, typer.Option(help="Base model.")],
    training_file: Annotated[str, typer.Option(help="Id of the training file.")],
    validation_file: Annotated[str | None, typer.Option(help="Id of the validation file.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the new model's name.")] = None,
    method: Annotated[MethodName, typer.Option(help="dpo learns from preference rows.")] = MethodName.SUPERVISED,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Start a job."""
    body: dict[str, JsonValue] = {"model": model, "suffix": suffix, "method": {"type": method.value}}
    body |= {"training_file": training_file, "validation_file": validation_file}
    print_one(request("POST", "/v1/fine_tuning/jobs", json=body), JOB_COLUMNS, output)


@job_app.command("list")
def list_jobs(output: Output = OutputFormat.TABLE) -> None:
    """List jobs, newest first."""
    print_list("/v1/fine_tuning/jobs?limit=100", JOB_COLUMNS, output)


@job_app.command("get")
def get_job(job_id: JobId, output: Output = OutputFormat.TABLE) -> None:
    """Show a job."""
    print_one(request("GET", f"/v1/fine_tuning/jobs/{job_id}"), JOB_COLUMNS, output)


@job_app.command("events")
def events(job_id: JobId, output: Output = OutputFormat.TABLE) -> None:
    """List a job's events, newest first."""
    print_list(f"/v1/fine_tuning/jobs/{job_id}/events?limit=100", EVENT_COLUMNS, output)


@job_app.command("report")
def report(job_id: JobId, output: Output = OutputFormat.TABLE) -> None:
    """Show the verdict on a job, rule by rule."""
    found = request("GET", f"/v1/guardrail/jobs/{job_id}/report")
    if output is not OutputFormat.TABLE:
        print_document(found, output)
        return
    typer.echo(f"decision: {found['decision']}")
    rules = found["rules"]
    assert isinstance(rules, list)
    coarse, full = ("rule", "outcome", "direction"), ("rule", "mode", "outcome", "reason")
    columns = coarse if found.get("disclosure") == "coarse" else full
    print_rows([rule for rule in rules if isinstance(rule, dict)], columns, output)


def _add_control(name: str) -> None:
    @job_app.command(name, help=f"{name.capitalize()} a job.")
    def control(job_id: JobId, output: Output = OutputFormat.TABLE) -> None:
        print_one(request("POST", f"/v1/fine_tuning/jobs/{job_id}/{name}"), JOB_COLUMNS, output)


for control_name in ("cancel", "pause", "resume"):
    _add_control(control_name)


@model_app.command("list")
def list_models(output: Output = OutputFormat.TABLE) -> None:
    """List base models and released adapters."""
    print_list("/v1/models", MODEL_COLUMNS, output)


@model_app.command("delete")
def delete_model(model: ModelId) -> None:
    """Delete a released model."""
    request("DELETE", f"/v1/models/{model}")
    typer.echo(printable(f"{model} is deleted"))


@model_app.command("download")
def download(
    model: ModelId, folder: Annotated[Path, typer.Argument(help="New folder for the adapter.", exists=False)]
) -> None:
    """Download a released adapter into a folder that `PeftModel.from_pretrained` loads; every byte is checked."""
    with tempfile.TemporaryFile() as archive, connect() as client:
        with client.stream("GET", f"/v1/guardrail/models/{model}/adapter") as answer:
            for piece in checked(answer).iter_bytes():
                archive.write(piece)
            digest = answer.headers.get("x-adapter-digest", "")
        archive.seek(0)
        unpack_adapter(archive, folder, digest=digest)
    typer.echo(folder)
