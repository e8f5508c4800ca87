"""`tunegate import openai` against a live gateway, and its plan without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from gateway.cli.commands import COMMANDS
from policies.cli import exit_codes
from policies.cli.main import build_app, run
from tests.gateway.cli.openai_import.exports import file_object, job_object, rows, save
from tests.gateway.conftest import LiveGateway, gateway_settings, run_gateway
from tests.gateway.databases import SqliteDatabases
from tests.policies.rendering.bases import folder_with
from tests.tiny_base import TEMPLATE

MAPPED = ("--model", "gpt-4o-mini=tiny")
BASE_MODEL = """\
apiVersion: tunegate/v1
kind: BaseModel
metadata: {{name: tiny, version: "1"}}
spec: {{name: tiny, uri: "{uri}", max_sequence_tokens: 256}}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    """One that offers a base model whose tokenizer has a token for each byte."""
    policies = tmp_path / "policies"
    policies.mkdir()
    base = folder_with(TEMPLATE, tmp_path / "base")
    (policies / "tiny.yaml").write_text(BASE_MODEL.format(uri=base))
    with SqliteDatabases(tmp_path).migrated() as url:
        settings = gateway_settings(tmp_path, database_url=url, policy_dir=policies)
        with run_gateway(settings) as live:
            yield live


@pytest.fixture
def tenant(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> OpenAI:
    """A client of the tenant that the command line imports for."""
    key = gateway.tenant_key()
    monkeypatch.setenv("TUNEGATE_BASE_URL", f"{gateway.url}/v1")
    monkeypatch.setenv("TUNEGATE_API_KEY", key)
    return gateway.client(key)


@pytest.fixture
def import_(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the command; its exit code and what it printed as JSON."""

    def run_import(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = run(["import", "openai", *map(str, arguments), "-o", "json"], build_app(COMMANDS))
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else {"error": printed.err}

    return run_import


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two jobs on one training file, one of them with a validation file."""
    training, validation = rows(12), rows(3, word="and")
    return save(
        tmp_path / "export",
        objects=[
            file_object("file-train", training, filename="train.jsonl"),
            file_object("file-valid", validation, filename="valid.jsonl"),
            job_object("ftjob-second", "file-train", created_at=2, suffix=None),
            job_object("ftjob-first", "file-train", created_at=1, validation_file="file-valid"),
        ],
        contents={"file-train.jsonl": training, "valid.jsonl": validation},
    )


def states(document: dict[str, Any], key: str = "jobs") -> list[tuple[str, str]]:
    return [(each[key[:-1]], each["state"]) for each in document[key]]


def test_exported_jobs_are_submitted_with_their_files_and_settings(
    tenant: OpenAI, import_: Callable[..., Any], export: Path
) -> None:
    code, document = import_(export, *MAPPED)
    assert code == exit_codes.OK, document
    assert states(document, "files") == [("file-train", "uploaded"), ("file-valid", "uploaded")]
    assert states(document) == [("ftjob-first", "submitted"), ("ftjob-second", "submitted")]
    job = tenant.fine_tuning.jobs.retrieve(document["jobs"][0]["here"])
    assert (job.model, job.seed) == ("tiny", 683058546)
    assert job.metadata == {"team": "taps", "openai_job_id": "ftjob-first"}
    assert (job.model_extra or {})["suffix"] == "taps"
    hyperparameters = job.hyperparameters
    assert (hyperparameters.n_epochs, hyperparameters.batch_size) == (3, 1)
    assert hyperparameters.learning_rate_multiplier == 1.8
    assert tenant.files.content(job.training_file).content == rows(12)
    assert job.validation_file is not None
    assert tenant.files.retrieve(job.validation_file).filename == "valid.jsonl"


def test_second_run_uploads_and_submits_nothing(tenant: OpenAI, import_: Callable[..., Any], export: Path) -> None:
    _, first = import_(export, *MAPPED)
    code, second = import_(export, *MAPPED)
    assert code == exit_codes.OK
    assert {state for key in ("files", "jobs") for _, state in states(second, key)} == {"there already"}
    assert [job["here"] for job in second["jobs"]] == [job["here"] for job in first["jobs"]]
    assert len(tenant.files.list().data) == 2
    assert len(tenant.fine_tuning.jobs.list().data) == 2


def test_run_that_stopped_goes_on_with_what_is_missing(
    tenant: OpenAI, import_: Callable[..., Any], export: Path
) -> None:
    """The file went up and no job followed; its bytes are known again though it has another name here."""
    uploaded = tenant.files.create(file=("mine.jsonl", rows(12)), purpose="fine-tune")
    code, document = import_(export, *MAPPED)
    assert code == exit_codes.OK
    assert document["files"][0]["state"] == "there already"
    assert document["files"][0]["here"] == uploaded.id
    assert {state for _, state in states(document)} == {"submitted"}


def test_job_whose_metadata_has_no_room_for_a_mark_is_not_submitted_twice(
    tenant: OpenAI, import_: Callable[..., Any], tmp_path: Path
) -> None:
    full = {str(n): "x" for n in range(16)}
    folder = save(
        tmp_path / "export",
        objects=[file_object("file-a", rows()), job_object("ftjob-a", "file-a", metadata=full)],
        contents={"file-a.jsonl": rows()},
    )
    for _ in range(2):
        code, document = import_(folder, *MAPPED)
        assert code == exit_codes.OK
    assert len(tenant.fine_tuning.jobs.list().data) == 1
    assert "metadata is full" in document["jobs"][0]["why"]


def test_same_bytes_are_uploaded_once(tenant: OpenAI, import_: Callable[..., Any], tmp_path: Path) -> None:
    objects = [file_object(f"file-{n}", rows()) for n in range(3)]
    folder = save(tmp_path / "export", objects=objects, contents={f"file-{n}.jsonl": rows() for n in range(3)})
    code, document = import_(folder)
    assert code == exit_codes.OK
    assert [state for _, state in states(document, "files")] == ["uploaded", "there already", "there already"]
    assert len(tenant.files.list().data) == 1


def test_dry_run_needs_no_gateway_and_shows_why_a_job_does_not_go(
    import_: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEGATE_BASE_URL", raising=False)
    vision = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]
    row = {"messages": [{"role": "user", "content": vision}, {"role": "assistant", "content": "A tap."}]}
    seen = rows() + json.dumps(row).encode()
    folder = save(
        tmp_path / "export",
        objects=[
            file_object("file-good", rows()),
            file_object("file-seen", seen),
            file_object("file-result", b"step", purpose="fine-tune-results"),
            job_object("ftjob-good", "file-good", created_at=1, integrations=[{"type": "wandb", "wandb": {}}]),
            job_object("ftjob-seen", "file-seen", created_at=2),
            job_object("ftjob-rft", "file-good", created_at=3, method={"type": "reinforcement", "reinforcement": {}}),
            job_object("ftjob-lost", "file-lost", created_at=4),
            job_object("ftjob-dpo", "file-good", created_at=5, method={"type": "dpo", "dpo": {}}),
            job_object("ftjob-onward", "file-good", created_at=6, model="ft:gpt-4o-mini-2024-07-18:acme::abc"),
            job_object("ftjob-other", "file-good", created_at=7, model="gpt-4o-2024-08-06"),
            job_object("ftjob-failed", "file-good", created_at=8, status="failed"),
        ],
        contents={"file-good.jsonl": rows(), "file-seen.jsonl": seen},
    )
    code, document = import_(folder, *MAPPED, "--dry-run")
    assert code == exit_codes.USAGE
    why = {each["job"]: each["why"] for each in document["jobs"]}
    assert dict(states(document)) == {
        "ftjob-good": "planned",
        "ftjob-failed": "left out",
        **dict.fromkeys(why.keys() - {"ftjob-good", "ftjob-failed"}, "refused"),
    }
    for job, reason in (
        ("ftjob-good", "wandb is left out"),
        ("ftjob-seen", "image_url"),
        ("ftjob-rft", "unsupported_method"),
        ("ftjob-lost", "save them as file-lost.jsonl"),
        ("ftjob-dpo", "dpo does not train"),
        ("ftjob-onward", "whose weights stay there"),
        ("ftjob-other", "--model gpt-4o-2024-08-06=NAME"),
        ("ftjob-failed", "--all"),
    ):
        assert reason in why[job], job
    assert dict(states(document, "files"))["file-result"] == "left out"


def test_what_the_gateway_refuses_is_told_and_the_rest_is_submitted(
    tenant: OpenAI, import_: Callable[..., Any], export: Path
) -> None:
    line = json.dumps(job_object("ftjob-elsewhere", "file-train", model="gpt-4o-2024-08-06"))
    (export / "more.jsonl").write_text(line + "\n")
    code, document = import_(export, *MAPPED, "--model", "gpt-4o=no-such-base")
    assert code == exit_codes.USAGE
    assert dict(states(document))["ftjob-elsewhere"] == "refused"
    assert "model_not_found" in next(each["why"] for each in document["jobs"] if each["job"] == "ftjob-elsewhere")
    assert len(tenant.fine_tuning.jobs.list().data) == 2


def test_file_that_the_base_model_cannot_take_starts_no_job(
    tenant: OpenAI, import_: Callable[..., Any], tmp_path: Path
) -> None:
    """A row of 400 bytes is more than 256 tokens, which only the gateway knows."""
    long = (
        rows(11)
        + json.dumps(
            {"messages": [{"role": "user", "content": "tap " * 100}, {"role": "assistant", "content": "No."}]}
        ).encode()
    )
    folder = save(
        tmp_path / "export",
        objects=[file_object("file-a", long), job_object("ftjob-a", "file-a")],
        contents={"file-a.jsonl": long},
    )
    code, document = import_(folder, *MAPPED)
    assert code == exit_codes.USAGE
    assert states(document) == [("ftjob-a", "refused")]
    assert "line 12" in document["jobs"][0]["why"]
    assert tenant.fine_tuning.jobs.list().data == []


def test_gateway_that_is_away_is_an_error_at_run_time(
    import_: Callable[..., Any], export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TUNEGATE_API_KEY", "sk-tg-x")
    code, document = import_(export, *MAPPED)
    assert code == exit_codes.RUNTIME
    assert (document["files"], document["jobs"]) == ([], [])


def test_what_the_guide_exports_is_what_is_imported(
    gateway: LiveGateway, tenant: OpenAI, import_: Callable[..., Any], export: Path, tmp_path: Path
) -> None:
    """The guide's script saves what one tenant has; another one imports it."""
    assert import_(export, *MAPPED)[0] == exit_codes.OK
    guide = (Path(__file__).parents[4] / "docs" / "migrating-from-openai.md").read_text()
    script = guide.partition("```python\n")[2].partition("```")[0]
    address = {"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": tenant.api_key}
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "elsewhere", env={**os.environ, **address}, check=True
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNEGATE_API_KEY", gateway.tenant_key("another"))
        code, document = import_(tmp_path / "elsewhere" / "export", "--model", "tiny")
    assert code == exit_codes.OK, document
    assert [state for key in ("files", "jobs") for _, state in states(document, key)] == [
        *("uploaded", "uploaded", "submitted", "submitted")
    ]


@pytest.mark.parametrize("option", ["gpt-4o-mini=", "", "a=b=", "gpt-4o-mini=other"])
def test_mapping_of_a_model_that_says_nothing_or_two_things_is_wrong(
    import_: Callable[..., Any], export: Path, option: str
) -> None:
    code, document = import_(export, *MAPPED, "--model", option, "--dry-run")
    assert code == exit_codes.USAGE
    assert "write THERE=HERE" in document["error"]


def test_table_shows_nothing_that_a_terminal_would_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = [
        file_object("file-a", rows(), filename="a\x1b[2Jb.jsonl"),
        job_object("ftjob-a", "file-a", model="m\x1b]0;x"),
        {"object": "\x1b[1m"},
    ]
    folder = save(tmp_path / "export", objects=objects, contents={"file-a.jsonl": rows()})
    assert run(["import", "openai", str(folder), "--dry-run"], build_app(COMMANDS)) == exit_codes.USAGE
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "left out, for they are neither files nor jobs: 1" in printed
    assert "1 left out, 1 refused" in printed
