"""What OpenAI's API has and this service does not, asked for with the openai client."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from gateway.http.not_offered import ELSEWHERE
from tests.gateway.conftest import LiveGateway

OFFERED = {"files", "fine_tuning", "models", "uploads"}
CHECKPOINT = "ft:smollm2-135m-instruct:acme:x:12345678:ckpt-step-10"
GRADER: dict[str, str] = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "yes",
    "operation": "eq",
}
Call = Callable[[OpenAI], object]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.fine_tuning.checkpoints.permissions.create(CHECKPOINT, project_ids=["proj_1"]),
        lambda client: list(client.fine_tuning.checkpoints.permissions.list(CHECKPOINT)),
        lambda client: client.fine_tuning.checkpoints.permissions.delete(
            "cp_1", fine_tuned_model_checkpoint=CHECKPOINT
        ),
        lambda client: client.fine_tuning.checkpoints.permissions.create("org/model:x", project_ids=["proj_1"]),
    ],
)
def test_checkpoints_are_not_shared(client: OpenAI, call: Call) -> None:
    with pytest.raises(BadRequestError, match=r"belongs to the organisation.*guardrail/models") as error:
        call(client)
    assert error.value.code == "checkpoint_permissions_unsupported"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.fine_tuning.alpha.graders.run(grader=GRADER, model_sample="yes"),
        lambda client: client.fine_tuning.alpha.graders.validate(grader=GRADER),
    ],
)
def test_graders_are_not_run(client: OpenAI, call: Call) -> None:
    with pytest.raises(BadRequestError, match=r"method.type 'supervised' or 'dpo'.*report") as error:
        call(client)
    assert error.value.code == "graders_unsupported"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}]),
        lambda client: client.responses.create(model="m", input="?"),
        lambda client: client.embeddings.create(model="m", input="?"),
        lambda client: client.batches.list(),
        lambda client: client.evals.list(),
        lambda client: client.vector_stores.list(),
        lambda client: client.moderations.create(input="?"),
        lambda client: client.vector_stores.files.delete("file-1", vector_store_id="vs_1"),
    ],
)
def test_other_services_are_told_by_name(client: OpenAI, call: Call) -> None:
    with pytest.raises(NotFoundError, match=r"not offered here.*inference server of yours") as error:
        call(client)
    assert (error.value.code, error.value.type) == ("endpoint_not_offered", "invalid_request_error")


def test_every_path_of_the_client_is_offered_or_told_by_name() -> None:
    """By the texts of its sources that look like paths: their first parts."""
    sources = list((Path(openai.__file__).parent / "resources").rglob("*.py"))
    found = {name for source in sources for name in re.findall(r'"/([a-z_]+)[/"]', source.read_text())}
    assert len(found) >= 15
    assert found - OFFERED - {"v1"} <= set(ELSEWHERE)


def test_nobody_is_told_without_a_key(live_gateway: LiveGateway) -> None:
    for path in ("/v1/batches", "/v1/fine_tuning/alpha/graders/run"):
        assert httpx.post(f"{live_gateway.url}{path}", json={}).json()["error"]["code"] == "invalid_api_key"


def test_what_is_unknown_and_what_is_not_allowed_stay_what_they_are(live_gateway: LiveGateway, client: OpenAI) -> None:
    headers = {"authorization": f"Bearer {client.api_key}"}
    for method, path, status, code in (
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v1/fine_tuning/nothing", 404, "unknown_url"),
        ("PUT", "/v1/files", 405, "method_not_allowed"),
        ("DELETE", "/v1/fine_tuning/jobs", 405, "method_not_allowed"),
    ):
        answer = httpx.request(method, f"{live_gateway.url}{path}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
