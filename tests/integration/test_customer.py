"""One script that a customer of OpenAI has, in Python and in Node, sees one service through each client.

All clients run at once and follow one job, so that no more than that one is trained.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openai import OpenAI

from gateway.embedded.stack import EmbeddedStack

CUSTOMER = Path(__file__).parents[1] / "customer"
OLDER_CLIENT = Path(sys.prefix) / "openai-cli"
PATIENCE_SECONDS = 400.0
ID = re.compile(r"\b(file|ftjob|ftevent|ftckpt)[-_][A-Za-z0-9]{12,}")
Found = list[tuple[str, Any]]  # Any: JSON


class Script(NamedTuple):
    """The script with one client."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = {}
    missing: str | None = None
    """Why it can't run here."""


def scripts() -> dict[str, Script]:
    node = shutil.which("node")
    python = (sys.executable, str(CUSTOMER / "customer.py"))
    has_node = node is not None and (CUSTOMER / "node_modules" / "openai").is_dir()
    return {
        "python": Script(python),
        "older python": Script(
            python,
            {"PYTHONPATH": str(OLDER_CLIENT)},
            None if OLDER_CLIENT.is_dir() else "`make test` has not installed the older client",
        ),
        "node": Script(
            (node or "", str(CUSTOMER / "customer.mjs")),
            missing=None if has_node else "there was no Node.js when `make test` installed what it needs",
        ),
    }


@pytest.fixture(scope="module")
def told(
    stack: EmbeddedStack, training_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Found]]:
    """What the script printed with each client that is installed: steps with what they found."""
    key = stack.create_key("customer", "lenient")
    address = {"OPENAI_BASE_URL": stack.base_url, "OPENAI_API_KEY": key}
    with OpenAI(base_url=stack.base_url, api_key=key) as client, training_file.open("rb") as stream:
        file_id = client.files.create(file=stream, purpose="fine-tune").id
    folder = tmp_path_factory.mktemp("customer")
    running = {
        name: start(script, file_id, name, printed=folder / name, environment=address)
        for name, script in scripts().items()
        if script.missing is None
    }
    try:
        yield {name: found(process, folder / name) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def start(
    script: Script, file_id: str, run: str, *, printed: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with printed.open("wb") as stream:
        return subprocess.Popen(
            [*script.command, file_id, run],
            env={**os.environ, **environment, **script.environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def found(process: subprocess.Popen[bytes], printed: Path) -> Found:
    """Ids that differ between the scripts are left out."""
    code = process.wait(PATIENCE_SECONDS)
    text = printed.read_text()
    assert code == 0, text[-4000:]
    lines = [json.loads(ID.sub(r"\1", line)) for line in text.splitlines()]
    return [(line["step"], line["found"]) for line in lines]


def test_a_customers_script_gets_through_every_step(told: dict[str, Found]) -> None:
    found = dict(told["python"])
    assert found["models"] is True
    assert found["files"] == ["disk.jsonl", "stream.jsonl"]
    assert found["file"] == ["file", len(found["content"]), "stream.jsonl", "fine-tune", "processed", 7200]
    assert found["paused"] == "paused"
    assert found["cancelled"] == ["cancelled", None, None]
    status, error = found["failed"]
    assert (status, error["code"], error["param"]) == ("failed", "invalid_training_file", "training_file")
    assert any("line 13" in message for message in found["why"])
    assert found["jobs"] == [["cancelled", True], ["failed", False]]
    assert found["job"]["status"] == "succeeded"
    assert found["fine-tuned model"]["id"] == found["job"]["fine_tuned_model"]
    assert found["result"].startswith("step,")
    assert [checkpoint["step_number"] for checkpoint in found["checkpoints"]] == [11, 10, 5]
    assert len(found["events"]) > 4


def test_refusals_have_their_class_status_code_and_param(told: dict[str, Found]) -> None:
    refused = {step.removeprefix("refused: "): tuple(what) for step, what in told["python"] if "refused" in step}
    wrong = "invalid_request_error"
    assert refused == {
        "unknown job": ("NotFoundError", 404, "job_not_found", "fine_tuning_job_id", wrong),
        "unknown file": ("NotFoundError", 404, "file_not_found", "id", wrong),
        "unknown model": ("BadRequestError", 400, "model_not_found", "model", wrong),
        "unknown training file": ("BadRequestError", 400, "file_not_found", "training_file", wrong),
        "purpose": ("BadRequestError", 400, "unsupported_purpose", "purpose", wrong),
        "epochs": ("BadRequestError", 400, "invalid_request", "hyperparameters.n_epochs", wrong),
        "reinforcement": ("BadRequestError", 400, "unsupported_method", "method.type", wrong),
        "base model": ("BadRequestError", 400, "not_deletable", "model", wrong),
        "key": ("AuthenticationError", 401, "invalid_api_key", None, wrong),
        "deleted file": ("NotFoundError", 404, "file_not_found", "id", wrong),
    }


@pytest.mark.parametrize("name", [name for name in scripts() if name != "python"])
def test_each_client_tells_the_same_story(told: dict[str, Found], name: str) -> None:
    """The same steps in the same order, and the same objects; of the one job that all followed, to the last figure."""
    if missing := scripts()[name].missing:
        pytest.skip(missing)
    assert [step for step, _ in told[name]] == [step for step, _ in told["python"]]
    for (step, there), (_, here) in zip(told[name], told["python"], strict=True):
        assert there == here, step
