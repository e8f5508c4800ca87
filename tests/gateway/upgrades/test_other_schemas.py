"""Code and database of different versions: nothing is written, and what to run is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from structlog.typing import EventDict

from gateway.db import make_engine
from gateway.migrate import SchemaError, upgrade
from gateway.settings import GatewaySettings
from tests.gateway.conftest import LiveGateway, run_gateway
from tests.gateway.upgrades.conftest import Tunegate
from tests.gateway.upgrades.earlier_versions import earlier, put_back

OLDER = "the database is at 0008, and this version needs .*: run `tunegate upgrade`"
NEWER = "the database is at 9999, which this version does not know"


def migrated_by_a_newer_version(url: str) -> None:
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()


def n_files(url: str) -> int:
    engine = make_engine(url)
    with engine.begin() as connection:
        count: int = connection.execute(text("SELECT count(*) FROM files")).scalar_one()
    engine.dispose()
    return count


def upload(gateway: LiveGateway, key: str) -> httpx.Response:
    files = {"file": ("rows.jsonl", b"{}\n")}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{gateway.url}/v1/files", headers=headers, files=files, data={"purpose": "fine-tune"})


def test_a_gateway_whose_database_was_migrated_by_a_newer_one_writes_nothing(
    settings: GatewaySettings, quiet_log: list[EventDict]
) -> None:
    """It had no connection at that moment, as no process has while the newer version migrates."""
    upgrade(settings.database_url)
    with run_gateway(settings) as gateway:
        key = gateway.tenant_key()
        assert upload(gateway, key).status_code == 200
        gateway.services.database.close()
        migrated_by_a_newer_version(settings.database_url)
        answers = [
            upload(gateway, key),
            httpx.get(f"{gateway.url}/v1/models", headers={"authorization": f"Bearer {key}"}),
            httpx.post(f"{gateway.url}/internal/v1/claims", headers=gateway.worker_headers(), json=CLAIM),
        ]
        assert [answer.status_code for answer in answers] == [503, 503, 503]
        assert {answer.json()["error"]["code"] for answer in answers} == {"migrations_pending"}
        assert all("try again" in answer.text and "9999" not in answer.text for answer in answers)
        ready = gateway.ask_operations("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "migrations_pending")
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
    assert any(NEWER in entry.get("error", "") for entry in quiet_log)
    assert n_files(settings.database_url) == 1


CLAIM = {"kind": "train", "job_id": "ftjob-1", "worker": "w"}


def test_a_gateway_on_a_database_of_an_earlier_version_answers_nothing(settings: GatewaySettings, store: Path) -> None:
    """`tunegate serve` migrates; whatever else runs the application does not begin to write before somebody has."""
    put_back(earlier("0008"), url=settings.database_url, store=store)
    with run_gateway(settings, has_checked_bases=False) as gateway:
        answer = httpx.post(f"{gateway.url}/internal/v1/claims", headers=gateway.worker_headers(), json=CLAIM)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "migrations_pending")


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)  # a process takes seconds to start
def test_the_gateways_worker_does_not_start_on_another_version(settings: GatewaySettings, store: Path) -> None:
    put_back(earlier("0008"), url=settings.database_url, store=store)
    command = [sys.executable, "-m", "celery", "-A", "gateway.celery_app", "worker", "-Q", "gateway", "-P", "solo"]
    environment = {**os.environ, "TUNEGATE_DATABASE_URL": settings.database_url}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert "error: the database is at 0008" in ended.stderr
    assert "run `tunegate upgrade`" in ended.stderr


def test_commands_that_do_not_migrate_say_what_does(settings: GatewaySettings, store: Path, tunegate: Tunegate) -> None:
    put_back(earlier("0008"), url=settings.database_url, store=store)
    for arguments in (("keys", "list"), ("keys", "revoke", "key_1")):
        with pytest.raises(SchemaError, match=OLDER):
            tunegate(*arguments)
    migrated_by_a_newer_version(settings.database_url)
    with pytest.raises(SchemaError, match=NEWER):
        tunegate("keys", "create", "--tenant", "acme")
