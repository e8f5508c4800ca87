"""Liveness and readiness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from sqlalchemy import text

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway


def test_migrated_gateway_is_ready(live_gateway: LiveGateway) -> None:
    assert httpx.get(f"{live_gateway.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{live_gateway.url}/readyz").json() == {"status": "ready"}


def test_gateway_with_an_older_database_is_not_ready(live_gateway: LiveGateway) -> None:
    with live_gateway.services.database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'old'"))
    answer = httpx.get(f"{live_gateway.url}/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "migrations_pending")
    assert httpx.get(f"{live_gateway.url}/healthz").status_code == 200
