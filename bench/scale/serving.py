"""What is asked: a gateway in a process of its own, whose processor time is read from outside, and a database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import httpx
from sqlalchemy import Engine, text

from gateway.embedded.stack import free_port
from gateway.settings import GatewaySettings
from policies.errors import ConfigurationError, WorkerError
from tests.postgres import PostgresServer, postgres_binaries

START_SECONDS = 60.0


class Served(NamedTuple):
    """Where a gateway listens, and its process."""

    url: str
    operations_url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far; the clock's number is made as by clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.pid << 3) | 2)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database of a server of its own."""
    binaries = postgres_binaries()
    if binaries is None:
        raise ConfigurationError("no PostgreSQL on PATH; measure with --database sqlite")
    server = PostgresServer(binaries)
    try:
        with server.database() as name:
            yield server.url(name)
    finally:
        server.close()


def vacuum(engine: Engine) -> None:
    """As autovacuum does in a server that runs: statistics for plans, and pages that an index alone answers for.

    Nobody does so for SQLite, which plans by its indexes alone.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def served(settings: GatewaySettings, tokens: Mapping[str, str]) -> Iterator[Served]:
    """A gateway with limits that are not what is measured."""
    port, operations_port = free_port(), free_port()
    environment = os.environ | {
        "TUNEGATE_DATABASE_URL": settings.database_url,
        "TUNEGATE_STORE_URL": settings.store_url,
        "TUNEGATE_REQUESTS_PER_MINUTE": "10000000",
        "TUNEGATE_JOBS_UNDER_WAY": "10000000",
        **{f"TUNEGATE_{name.upper()}": token for name, token in tokens.items()},
    }
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), "--operations-port", str(operations_port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/healthz", process)
        yield Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{operations_port}", process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise WorkerError("the gateway did not start")
