"""A real gateway for tests: uvicorn in a thread, SQLite and a local store in a folder, the openai client in front."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
import uvicorn
from openai import DefaultHttpxClient, OpenAI
from pydantic import SecretStr
from sqlalchemy import make_url

from gateway.app import create_app
from gateway.dependencies import Services
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from gateway.tenants.keys import create_key, create_tenant
from policies.contract.worker_api import WorkKind

WORKER_TOKENS: Mapping[WorkKind, str] = {"train": "t" * 40, "evaluate": "e" * 40}


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
    services: Services
    clock: ManualClock
    _clients: list[OpenAI] = field(default_factory=list)

    def tenant_key(self, name: str = "acme", policy: str = "baseline") -> str:
        """A key of a new tenant."""
        with self.services.database.transaction() as session:
            tenant = create_tenant(session, name, policy=policy, now=self.services.now())
            return create_key(session, tenant, now=self.services.now()).secret

    def client(self, key: str) -> OpenAI:
        # no certificates, which take longer to read than many a test
        http = DefaultHttpxClient(verify=False)
        client = OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=http)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.services.database.engine.dispose()


def gateway_settings(folder: Path, **changes: object) -> GatewaySettings:
    values = {
        "database_url": f"sqlite:///{folder}/gateway.db",
        "store_url": f"file://{folder}/store",
        "trainer_token": SecretStr(WORKER_TOKENS["train"]),
        "evaluator_token": SecretStr(WORKER_TOKENS["evaluate"]),
    }
    return GatewaySettings.model_validate(values | changes)


@cache
def migrated() -> bytes:
    """A file of an empty SQLite database at the newest migration."""
    with TemporaryDirectory() as folder:
        upgrade(f"sqlite:///{folder}/gateway.db")
        return Path(folder, "gateway.db").read_bytes()


def migrate(settings: GatewaySettings) -> None:
    """Migrate the database of a gateway; a new one is copied from one that was migrated before."""
    path = Path(make_url(settings.database_url).database or "")
    if path.exists():
        upgrade(settings.database_url)
    else:
        path.write_bytes(migrated())


@contextmanager
def run_gateway(settings: GatewaySettings) -> Iterator[LiveGateway]:
    """Migrate, serve on a free port, and stop again."""
    migrate(settings)
    clock = ManualClock()
    app = create_app(settings, clock)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    socket = server.config.bind_socket()
    socket.listen()  # a request that comes before the server runs waits, and is not refused
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    gateway = LiveGateway(f"http://127.0.0.1:{socket.getsockname()[1]}", app.state.services, clock)
    try:
        yield gateway
    finally:
        server.should_exit = True
        thread.join()
        socket.close()
        gateway.close()


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[list[structlog.typing.EventDict]]:
    """Captures the structured log, so that tests may read it and nothing is printed."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return gateway_settings(tmp_path)


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
