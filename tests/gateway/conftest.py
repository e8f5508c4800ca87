"""A real gateway for tests: uvicorn in a thread, a database, a store in a folder, the openai client in front."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import FastAPI
from openai import DefaultHttpxClient, OpenAI
from pydantic import SecretStr
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.dependencies import Services
from gateway.http.operations import operations_app
from gateway.settings import GatewaySettings
from gateway.tenants.keys import create_key, create_tenant
from policies.contract.tasks import WORKER_KEY_HEADER
from policies.contract.worker_api import WorkKind
from tests.gateway.checked_bases import check_base_models
from tests.gateway.databases import KINDS, Databases, PostgresDatabases, SqliteDatabases, postgres_databases
from tests.gateway.servers import serving

WORKER_TOKENS: Mapping[WorkKind, str] = {"train": "t" * 40, "evaluate": "e" * 40, "confirm": "c" * 40}


@dataclass
class ManualClock:
    """Time that passes when a test says so."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class LiveGateway:
    """A gateway that listens, and what a test needs to talk to it and to look behind it."""

    url: str
    app: FastAPI
    services: Services
    clock: ManualClock
    _clients: list[OpenAI] = field(default_factory=list)

    def worker_headers(self, kind: WorkKind = "train", *, key: str = "k" * 40) -> dict[str, str]:
        """Credentials of a worker of this kind, with a key of its own."""
        return {"authorization": f"Bearer {WORKER_TOKENS[kind]}", WORKER_KEY_HEADER: key}

    def tenant_key(self, name: str = "acme", policy: str = "baseline", *, organisation: str | None = None) -> str:
        """A key of a new tenant."""
        with self.services.database.transaction() as session:
            now = self.services.now()
            tenant = create_tenant(session, name, policy=policy, now=now, organisation=organisation)
            return create_key(session, tenant, now=self.services.now()).secret

    def client(self, key: str) -> OpenAI:
        # no certificates, which take longer to read than many a test
        http = DefaultHttpxClient(verify=False)
        client = OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=http)
        self._clients.append(client)
        return client

    def ask_operations(self, path: str, **headers: str) -> httpx.Response:
        """The answer of the operator's port."""
        with TestClient(operations_app(self.app), raise_server_exceptions=False) as client:
            answer = client.get(path, headers=headers)
            return httpx.Response(answer.status_code, content=answer.content, request=httpx.Request("GET", self.url))

    def hang_up(self) -> None:
        for client in self._clients:
            client.close()


def gateway_settings(folder: Path, **changes: object) -> GatewaySettings:
    """Settings for a gateway whose store lies in `folder`, and its database where `changes` name no other."""
    values = {
        "database_url": f"sqlite:///{folder}/gateway.db",
        "store_url": f"file://{folder}/store",
        "trainer_token": SecretStr(WORKER_TOKENS["train"]),
        "evaluator_token": SecretStr(WORKER_TOKENS["evaluate"]),
        "confirmer_token": SecretStr(WORKER_TOKENS["confirm"]),
    }
    return GatewaySettings.model_validate(values | changes)


@contextmanager
def run_gateway(settings: GatewaySettings, *, has_checked_bases: bool = True) -> Iterator[LiveGateway]:
    """Serve at an address of its own, and stop again; the database is migrated already.

    An evaluator has looked at the base models, unless `has_checked_bases` is False.
    """
    clock = ManualClock()
    app = create_app(settings, clock)
    if has_checked_bases:
        check_base_models(app.state.services)
    with closing(app.state.services.database), serving(app) as url:
        gateway = LiveGateway(url, app, app.state.services, clock)
        try:
            yield gateway
        finally:
            gateway.hang_up()


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[list[structlog.typing.EventDict]]:
    """Captures the structured log, so that tests may read it and nothing is printed."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_databases() as databases:
        yield databases


@pytest.fixture(params=KINDS)
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Databases:
    """What touches a database is tested on each kind that is supported."""
    if request.param == "sqlite":
        return SqliteDatabases(tmp_path)
    found: PostgresDatabases = request.getfixturevalue("postgres")
    return found


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A database of the test's own, empty and at the newest migration."""
    with databases.migrated() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    return gateway_settings(tmp_path, database_url=database_url)


@pytest.fixture
def live_gateway(settings: GatewaySettings) -> Iterator[LiveGateway]:
    with run_gateway(settings) as gateway:
        yield gateway


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    """The client of the tenant `acme`."""
    return live_gateway.client(live_gateway.tenant_key())


def chat_jsonl(n_rows: int = 12) -> bytes:
    """A sound training file of distinct rows."""
    rows = (
        [{"role": "user", "content": f"What is {n} plus one?"}, {"role": "assistant", "content": f"It is {n + 1}."}]
        for n in range(n_rows)
    )
    return b"".join(json.dumps({"messages": row}).encode() + b"\n" for row in rows)


@pytest.fixture
def training_bytes() -> bytes:
    return chat_jsonl()
