"""The dry run of a file's validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from gateway.files.dataset.report import DatasetReport

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway


def validate(client: OpenAI, content: bytes, query: str = "") -> DatasetReport:
    file = client.files.create(file=("a.jsonl", content), purpose="fine-tune")
    path = f"{str(client.base_url).removesuffix('/v1/')}/v1/guardrail/files/{file.id}/validate{query}"
    return DatasetReport.model_validate_json(client.post(path, cast_to=httpx.Response).content)


def test_sound_file_is_valid(client: OpenAI, training_bytes: bytes) -> None:
    report = validate(client, training_bytes)
    assert report.valid
    assert report.rows == 12


def test_bad_lines_are_reported_with_field_code_and_fix(client: OpenAI, training_bytes: bytes) -> None:
    report = validate(client, training_bytes + b'{"messages": []}\n')
    assert not report.valid
    (problem,) = report.errors
    assert (problem.line, problem.field, problem.code) == (13, "messages", "empty_messages")
    assert problem.fix


def test_base_model_can_be_named(client: OpenAI, training_bytes: bytes) -> None:
    assert validate(client, training_bytes, "?model=smollm2-135m-instruct").valid
    with pytest.raises(BadRequestError) as error:
        validate(client, training_bytes, "?model=gpt-4o")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


def test_a_model_that_was_fine_tuned_from_it_stands_for_its_base(client: OpenAI, training_bytes: bytes) -> None:
    """Whether there is such a model is not looked at, so nothing is learnt of other tenants' models."""
    named = validate(client, training_bytes, "?model=smollm2-135m-instruct")
    assert validate(client, training_bytes, "?model=ft:smollm2-135m-instruct:acme::1a2b3c4d") == named
    with pytest.raises(BadRequestError):
        validate(client, training_bytes, "?model=ft:gpt-4o:acme::1a2b3c4d")


def test_file_of_another_tenant_is_a_404(live_gateway: LiveGateway, client: OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    stranger = live_gateway.client(live_gateway.tenant_key("stranger"))
    with pytest.raises(NotFoundError):
        stranger.post(f"{live_gateway.url}/v1/guardrail/files/{file.id}/validate", cast_to=httpx.Response)
