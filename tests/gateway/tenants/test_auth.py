"""Who gets in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from openai import AuthenticationError, OpenAI
from sqlalchemy import select

from gateway.tables.tenancy import ApiKey
from gateway.tenants.keys import PREFIX, is_well_formed, revoke_key
from policies.contract.tasks import CLAIMS_PATH

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway


def status_of(gateway: LiveGateway, path: str, **headers: str) -> tuple[int, str | None]:
    method = "POST" if path == CLAIMS_PATH else "GET"
    answer = httpx.request(method, gateway.url + path, headers=headers, json={} if method == "POST" else None)
    return answer.status_code, answer.json().get("error", {}).get("code")


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}, {"authorization": "Bearer sk-other"}],
)
def test_request_without_a_key_of_ours_is_401(live_gateway: LiveGateway, headers: dict[str, str]) -> None:
    assert status_of(live_gateway, "/v1/files", **headers) == (401, "invalid_api_key")


def test_unknown_key_of_right_form_is_401(live_gateway: LiveGateway) -> None:
    key = live_gateway.tenant_key()
    with live_gateway.services.database.transaction() as session:
        row = session.scalars(select(ApiKey)).one()
        row.key_hash = "0" * 64
    with pytest.raises(AuthenticationError) as error:
        live_gateway.client(key).files.list()
    assert error.value.code == "invalid_api_key"


def test_revoked_key_is_401(live_gateway: LiveGateway) -> None:
    key = live_gateway.tenant_key()
    with live_gateway.services.database.transaction() as session:
        row = session.scalars(select(ApiKey)).one()
        revoke_key(session, row.id, now=1)
    with pytest.raises(AuthenticationError):
        live_gateway.client(key).files.list()


def test_key_is_stored_as_a_hash_only(live_gateway: LiveGateway) -> None:
    key = live_gateway.tenant_key()
    with live_gateway.services.database.transaction() as session:
        row = session.scalars(select(ApiKey)).one()
    stored = " ".join(str(value) for value in vars(row).values())
    assert key not in stored
    assert row.redacted == f"{PREFIX}…{key[-4:]}"


def test_any_changed_character_breaks_the_checksum(live_gateway: LiveGateway) -> None:
    key = live_gateway.tenant_key()
    assert is_well_formed(key)
    for place in range(len(PREFIX), len(key)):
        other = "a" if key[place] != "a" else "b"
        assert not is_well_formed(key[:place] + other + key[place + 1 :])


def test_last_use_is_noted_at_most_once_a_minute(live_gateway: LiveGateway, client: OpenAI) -> None:
    def last_used() -> int | None:
        with live_gateway.services.database.transaction() as session:
            return session.scalars(select(ApiKey.last_used_at)).one()

    start = live_gateway.services.now()
    client.models.list()
    assert last_used() == start
    live_gateway.clock.advance(59)
    client.models.list()
    assert last_used() == start
    live_gateway.clock.advance(1)
    client.models.list()
    assert last_used() == start + 60


def test_tenant_key_does_not_open_the_internal_api(live_gateway: LiveGateway) -> None:
    bearer = f"Bearer {live_gateway.tenant_key()}"
    assert status_of(live_gateway, CLAIMS_PATH, authorization=bearer) == (401, "invalid_worker_credential")


@pytest.mark.parametrize("token", ["t" * 40, "e" * 40])
def test_a_workers_credential_does_not_open_the_tenants_api(live_gateway: LiveGateway, token: str) -> None:
    assert token in live_gateway.services.settings.worker_tokens().values()
    bearer = f"Bearer {token}"
    assert status_of(live_gateway, "/v1/files", authorization=bearer) == (401, "invalid_api_key")


def test_every_route_but_the_open_ones_refuses_a_stranger(live_gateway: LiveGateway) -> None:
    paths = httpx.get(f"{live_gateway.url}/openapi.json").json()["paths"]
    checked = 0
    for path, methods in paths.items():
        if path == "/healthz":
            continue
        for method in methods:
            assert httpx.request(method, live_gateway.url + path).status_code == 401, (method, path)
            checked += 1
    assert checked >= 18
