"""`integrations` of a new job: what is taken, kept, shown and refused."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import openai
import pytest
import structlog
from openai import OpenAI

from gateway.settings import GatewaySettings
from gateway.tables.integrations import MetricsExport
from policies.environment import read_settings
from policies.errors import ConfigurationError
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import job_row, submit, upload

KEY = "0123456789abcdef0123456789abcdef01234567"
FULL = {"project": "kittens", "name": "first try", "entity": "acme-ml", "tags": ["a", "b/c"]}


def wandb(**settings: object) -> list[dict[str, object]]:
    return [{"type": "wandb", "wandb": {"project": "kittens", **settings}}]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    """A deployment that exports to Weights & Biases, with a key of the tenant `acme`."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "acme").write_text(f"{KEY}\n")
    return gateway_settings(tmp_path, database_url=database_url, integration_sink="wandb", integration_keys=str(keys))


def refusal(client: OpenAI, integrations: object) -> tuple[str | None, str | None]:
    with pytest.raises(openai.BadRequestError) as error:
        submit(client, integrations=integrations)
    return error.value.param, error.value.code


def test_integrations_come_back_as_they_were_sent(client: OpenAI) -> None:
    job = submit(client, integrations=wandb(**FULL))
    for shown in (job, client.fine_tuning.jobs.retrieve(job.id), client.fine_tuning.jobs.list().data[0]):
        assert shown.integrations is not None
        (integration,) = shown.integrations
        assert integration.type == "wandb"
        assert integration.wandb.model_dump() == FULL


def test_what_is_left_out_is_null(client: OpenAI) -> None:
    (integration,) = submit(client, integrations=wandb()).integrations or []
    assert integration.wandb.model_dump() == {"project": "kittens", "name": None, "entity": None, "tags": []}


@pytest.mark.parametrize("none", [None, []])
def test_no_integrations_are_null(client: OpenAI, live_gateway: LiveGateway, none: object) -> None:
    job = submit(client, integrations=none)
    assert job.integrations is None
    with live_gateway.services.database.reading() as session:
        assert session.query(MetricsExport).all() == []


def test_an_export_waits_from_the_start(client: OpenAI, live_gateway: LiveGateway) -> None:
    job = submit(client, integrations=wandb())
    with live_gateway.services.database.reading() as session:
        (export,) = session.query(MetricsExport).all()
    assert (export.job_id, export.due_at, export.failures) == (job.id, live_gateway.clock(), 0)


def test_integrations_are_part_of_what_an_idempotency_key_stands_for(client: OpenAI) -> None:
    file_id, headers = upload(client), {"Idempotency-Key": "once"}
    first = submit(client, training_file=file_id, integrations=wandb(), extra_headers=headers)
    again = submit(client, training_file=file_id, integrations=wandb(), extra_headers=headers)
    assert first.id == again.id
    with pytest.raises(openai.BadRequestError) as error:
        submit(client, training_file=file_id, integrations=wandb(tags=["x"]), extra_headers=headers)
    assert error.value.code == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("integration", "param"),
    [
        ({"type": "mlflow", "wandb": FULL}, "integrations.0.type"),
        ({"type": "wandb"}, "integrations.0.wandb"),
        ({"type": "wandb", "wandb": {}}, "integrations.0.wandb.project"),
        ({"type": "wandb", "wandb": {**FULL, "api_key": KEY}}, "integrations.0.wandb.api_key"),
        ({"type": "wandb", "wandb": FULL, "base_url": "http://169.254.169.254"}, "integrations.0.base_url"),
        *(
            ({"type": "wandb", "wandb": {**FULL, field: value}}, f"integrations.0.wandb.{field}")
            for field, value in [
                ("project", ""),
                ("project", " a"),
                ("project", "x" * 129),
                ("project", "a/../b"),
                ("project", "a\nb"),
                ("project", "a\u202eb"),
                ("project", 7),
                ("name", ""),
                ("name", "two\r\nlines"),
                ("name", "x" * 129),
                ("entity", "acme\x1b[2J"),
                ("entity", "acme\x7f"),
                ("entity", "a/b"),
                ("entity", "x" * 65),
                ("tags", None),
                ("tags", "word"),
                ("tags", ["x"] * 65),
            ]
        ),
        ({"type": "wandb", "wandb": {**FULL, "tags": ["ok", ""]}}, "integrations.0.wandb.tags.1"),
        ({"type": "wandb", "wandb": {**FULL, "tags": ["x" * 65]}}, "integrations.0.wandb.tags.0"),
        ({"type": "wandb", "wandb": {**FULL, "tags": ["a\tb"]}}, "integrations.0.wandb.tags.0"),
    ],
)
def test_what_a_tracker_would_not_take_is_named(client: OpenAI, integration: object, param: str) -> None:
    assert refusal(client, [integration]) == (param, "invalid_request")


def test_six_integrations_are_too_many(client: OpenAI) -> None:
    assert refusal(client, wandb() * 6) == ("integrations", "invalid_request")


def test_a_hundred_thousand_tags_are_refused_before_they_are_read(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        submit(client, integrations=wandb(tags=["t"] * 100_000))
    assert error.value.status_code == 413


def test_as_many_tags_as_a_body_holds_are_refused_by_their_number(client: OpenAI) -> None:
    assert refusal(client, wandb(tags=["t"] * 40_000)) == ("integrations.0.wandb.tags", "invalid_request")


def test_a_tenant_without_a_key_is_told_what_it_can_do(live_gateway: LiveGateway) -> None:
    stranger = live_gateway.client(live_gateway.tenant_key("other"))
    with pytest.raises(openai.BadRequestError, match="tunegate jobs export JOB") as error:
        submit(stranger, integrations=wandb())
    assert (error.value.param, error.value.code) == ("integrations", "integration_not_connected")


def test_a_key_is_in_no_answer_record_or_log(
    client: OpenAI, live_gateway: LiveGateway, quiet_log: list[structlog.typing.EventDict]
) -> None:
    job = submit(client, integrations=wandb())
    row = job_row(live_gateway.services, job.id)
    headers = {"authorization": f"Bearer {client.api_key}"}
    answer = httpx.get(f"{live_gateway.url}/v1/fine_tuning/jobs/{job.id}/events", headers=headers).text
    for text in (job.model_dump_json(), json.dumps(row.spec), json.dumps(row.integrations), answer, str(quiet_log)):
        assert KEY not in text


def test_the_spec_that_is_trained_by_does_not_change(client: OpenAI, live_gateway: LiveGateway) -> None:
    """Trainers learn nothing of trackers."""
    row = job_row(live_gateway.services, submit(client, integrations=wandb()).id)
    assert "kittens" not in json.dumps(row.spec)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"SINK": "wandb"}, "needs TUNEGATE_INTEGRATION_KEYS"),
        ({"SINK": "mlflow"}, "needs TUNEGATE_INTEGRATION_TARGET"),
        ({"SINK": "tensorboard", "TARGET": "/srv", "KEYS": "/keys"}, "nothing else"),
        ({"SINK": "excel", "TARGET": "/srv"}, "TUNEGATE_INTEGRATION_SINK"),
    ],
)
def test_a_sink_without_what_it_needs_is_refused_at_the_start(
    changes: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(f"TUNEGATE_INTEGRATION_{name}", value)
    with pytest.raises(ConfigurationError, match=why):
        read_settings(GatewaySettings)
