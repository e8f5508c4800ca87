"""Liveness on the tenants' port; readiness and metrics on the operator's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from openai import OpenAI
from sqlalchemy import text
from structlog.typing import EventDict

from gateway.app import create_app
from gateway.http.operations import operations_app, served_beside
from gateway.http.security_headers import HEADERS
from tests.gateway.hand_worker import HandWorker, evaluate

if TYPE_CHECKING:
    from gateway.settings import GatewaySettings
    from tests.gateway.conftest import LiveGateway


def test_migrated_gateway_is_ready(live_gateway: LiveGateway) -> None:
    assert httpx.get(f"{live_gateway.url}/healthz").json() == {"status": "ok"}
    assert live_gateway.ask_operations("/healthz").json() == {"status": "ok"}
    assert live_gateway.ask_operations("/readyz").json() == {"status": "ready"}


def test_gateway_with_an_older_database_is_not_ready(live_gateway: LiveGateway) -> None:
    with live_gateway.services.database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'old'"))
    answer = live_gateway.ask_operations("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "migrations_pending")
    assert httpx.get(f"{live_gateway.url}/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/docs", "/redoc"])
def test_tenants_do_not_reach_what_is_the_operators(live_gateway: LiveGateway, path: str) -> None:
    answer = httpx.get(live_gateway.url + path, headers={"authorization": f"Bearer {live_gateway.tenant_key()}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize("path", ["/v1/files", "/internal/v1/claims", "/openapi.json"])
def test_operators_port_opens_nothing_else(live_gateway: LiveGateway, path: str) -> None:
    assert live_gateway.ask_operations(path).status_code == 404


def test_operators_port_is_served_beside_and_closed_again(settings: GatewaySettings) -> None:
    from gateway.embedded.stack import free_port

    app, port = create_app(settings), free_port()
    with served_beside(operations_app(app), host="127.0.0.1", port=port):
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert "tunegate_jobs_in_phase" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/readyz")
    app.state.services.database.close()


@pytest.mark.parametrize("path", ["/healthz", "/v1/files", "/nowhere", "/v1/files/%00", "/openapi.json"])
def test_every_answer_has_the_security_headers(live_gateway: LiveGateway, path: str) -> None:
    headers = httpx.get(live_gateway.url + path).headers
    assert {name: headers.get(name) for name in HEADERS} == HEADERS


def test_report_page_runs_no_script_and_loads_nothing(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    evaluate(live_gateway, worker, trained)
    url = f"{live_gateway.url}/v1/guardrail/jobs/{trained}/report.html"
    answer = httpx.get(url, headers={"authorization": f"Bearer {client.api_key}"})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script-src" not in policy
    assert "<style" in answer.text
    assert "<script" not in answer.text


def test_the_log_says_who_asked_and_never_with_what(live_gateway: LiveGateway, quiet_log: list[EventDict]) -> None:
    key = live_gateway.tenant_key()
    live_gateway.client(key).models.list()
    httpx.get(f"{live_gateway.url}/v1/models")
    asked = [entry for entry in quiet_log if entry["event"] == "request" and entry["path"] == "/v1/models"]
    assert [entry["status"] for entry in asked] == [200, 401]
    known, unknown = asked
    assert known["tenant"].startswith("org-")
    assert known["key"].startswith("key_")
    assert {"tenant", "key"} & set(unknown) == set()
    assert key not in str(quiet_log)
