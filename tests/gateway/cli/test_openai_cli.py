"""The command line `openai`, which the Python client had until version 2.34, against a live gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import LiveGateway, chat_jsonl, gateway_settings, run_gateway
from tests.gateway.databases import SqliteDatabases

CLIENT = Path(sys.prefix) / "openai-cli"
MODEL = "smollm2-135m-instruct"

pytestmark = pytest.mark.skipif(not CLIENT.is_dir(), reason="`make test` has not installed the client that has it")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    with SqliteDatabases(tmp_path).migrated() as url, run_gateway(gateway_settings(tmp_path, database_url=url)) as live:
        yield live


@pytest.fixture
def key(gateway: LiveGateway) -> str:
    return gateway.tenant_key()


@pytest.fixture
def openai(gateway: LiveGateway, key: str) -> Callable[..., Any]:
    """Runs `openai api …` and reads what it prints: an object, or those of a list that it prints one by one."""
    address = {"OPENAI_BASE_URL": f"{gateway.url}/v1", "OPENAI_API_KEY": key}

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, str(CLIENT / "bin" / "openai"), "api", *arguments],
            env={**os.environ, **address, "PYTHONPATH": str(CLIENT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return objects(done.stdout)

    return run


def objects(printed: str) -> list[Any]:
    found, decoder, rest = [], json.JSONDecoder(), printed.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def test_files_are_uploaded_listed_and_models_found(openai: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(chat_jsonl())
    (file,) = openai("files.create", "--file", str(path), "--purpose", "fine-tune")
    assert (file["filename"], file["bytes"]) == ("train.jsonl", len(chat_jsonl()))
    assert [each["id"] for each in openai("files.list")] == [file["id"]]
    assert MODEL in [each["id"] for each in openai("models.list")]
    assert openai("models.retrieve", "--id", MODEL)[0]["id"] == MODEL


def test_job_is_created_followed_and_cancelled(openai: Callable[..., Any], gateway: LiveGateway, key: str) -> None:
    file_id = gateway.client(key).files.create(file=("train.jsonl", chat_jsonl()), purpose="fine-tune").id
    settings = ("--suffix", "taps", "--hyperparameters", '{"n_epochs": 2}')
    (job,) = openai("fine_tuning.jobs.create", "--model", MODEL, "--training-file", file_id, *settings)
    assert (job["status"], job["suffix"], job["hyperparameters"]["n_epochs"]) == ("validating_files", "taps", 2)
    assert openai("fine_tuning.jobs.retrieve", "--id", job["id"])[0]["id"] == job["id"]
    (jobs,) = openai("fine_tuning.jobs.list", "--limit", "5")
    assert [each["id"] for each in jobs["data"]] == [job["id"]]
    assert openai("fine_tuning.jobs.cancel", "--id", job["id"])[0]["status"] == "cancelled"
    (events,) = openai("fine_tuning.jobs.list_events", "--id", job["id"])
    assert events["data"][0]["message"] == "The job was cancelled."


def test_refusal_is_shown_in_the_gateways_words(openai: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="no file 'file-unknown'; upload it first"):
        openai("fine_tuning.jobs.create", "--model", MODEL, "--training-file", "file-unknown")
