"""What requests cost when the database is full: `python -m bench.scale`.

Populates a database with so many jobs (12 events each, a tenth of them released), then asks a real gateway process on
127.0.0.1: one request after the other, and many clients at once. PostgreSQL is started for it from the binaries on
PATH. The last line is one JSON object. Seconds are by the clock, so read them beside the smaller size of the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx
from pydantic import SecretStr
from sqlalchemy import update

from bench.scale.load import WORKER_KEY, beat, read_at_once
from bench.scale.population import populate
from gateway.app import build_services
from gateway.dependencies import Services
from gateway.embedded.stack import free_port
from gateway.kit.hashing import sha256_hex
from gateway.metrics.families import SERIES
from gateway.metrics.rollups import SETTLED_SECONDS, roll_up
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from gateway.tenants.keys import create_key
from policies.contract.artifacts import digest_bytes
from policies.contract.jobs import JobSpec
from policies.errors import ConfigurationError, WorkerError
from tests.postgres import PostgresServer, postgres_binaries

TOKENS = {"trainer_token": "t" * 40, "evaluator_token": "e" * 40}
MODEL = "smollm2-135m-instruct"
START_SECONDS = 60.0
ROUNDS = 40
CLIENTS = 400
WORKERS = 500
BEAT_SECONDS = 10.0


class Case(NamedTuple):
    """A database of one size, and who may ask."""

    url: str
    operations_url: str
    key: str


class Figures(NamedTuple):
    """Milliseconds of one request after the other: the median of `ROUNDS`, and the worst."""

    median: float
    worst: float


def main(command_line: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(command_line)
    found = {}
    for n_jobs in arguments.jobs:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            url = f"sqlite:///{folder}/gateway.db"
            if arguments.database == "postgresql":
                url = stack.enter_context(postgres())
            found[str(n_jobs)] = measure(url, folder, n_jobs)
            print(n_jobs, json.dumps(found[str(n_jobs)]))
            sys.stdout.flush()
    print(json.dumps({"database": arguments.database, "jobs": found}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 1_000_000])
    return parser


@contextmanager
def postgres() -> Iterator[str]:
    binaries = postgres_binaries()
    if binaries is None:
        raise ConfigurationError("no PostgreSQL on PATH; measure with --database sqlite")
    server = PostgresServer(binaries)
    try:
        with server.database() as name:
            yield server.url(name)
    finally:
        server.close()


def measure(url: str, folder: Path, n_jobs: int) -> dict[str, object]:
    """Populate, serve and ask."""
    settings = GatewaySettings.model_validate(
        {"database_url": url, "store_url": f"file://{folder}/store"}
        | {name: SecretStr(token) for name, token in TOKENS.items()}
    )
    upgrade(url)
    services = build_services(settings)
    started = time.monotonic()
    try:
        key, tokens = _fill(services, n_jobs), _put_to_work(services)
    finally:
        services.database.close()
    print(f"{n_jobs} jobs written in {time.monotonic() - started:.0f} s", file=sys.stderr)
    with _served(settings) as (base, operations):
        case = Case(base, operations, key)
        figures = {name: ask._asdict() for name, ask in _one_after_the_other(case).items()}
        workers = asyncio.run(beat(case.url, tokens, credential=TOKENS["trainer_token"], every_seconds=BEAT_SECONDS))
        return {
            "milliseconds": figures,
            "at_once": asyncio.run(read_at_once(case.url, case.key, clients=CLIENTS)),
            "heartbeats": workers,
        }


def _fill(services: Services, n_jobs: int) -> str:
    """A key of the tenant that is measured; sums of metrics are rolled up, as they are in a service that runs."""
    policy = services.policies.release_policy("baseline")
    base = services.policies.base_model("smollm2-135m-instruct").spec
    spec = JobSpec(
        job_id="ftjob-0",
        base_model=base,
        training_file=digest_bytes(b""),
        seed=1,
        suite=policy.spec.suite,
        policy=policy.digest,
    )
    with services.database.engine.begin() as connection:
        tenant_id = populate(connection, n_jobs, spec=spec.model_dump_json(), policy=policy.digest)
    for now in (0.0, 2 * SETTLED_SECONDS):
        roll_up(replace(services, clock=partial(float, now)), SERIES)
    with services.database.transaction() as session:
        return create_key(session, session.get_one(Tenant, tenant_id), now=services.now()).secret


@contextmanager
def _served(settings: GatewaySettings) -> Iterator[tuple[str, str]]:
    """A gateway in a process of its own, with limits that are not what is measured."""
    port, operations_port = free_port(), free_port()
    environment = os.environ | {
        "TUNEGATE_DATABASE_URL": settings.database_url,
        "TUNEGATE_STORE_URL": settings.store_url,
        "TUNEGATE_REQUESTS_PER_MINUTE": "10000000",
        "TUNEGATE_JOBS_UNDER_WAY": "10000000",
        **{f"TUNEGATE_{name.upper()}": token for name, token in TOKENS.items()},
    }
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), "--operations-port", str(operations_port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/healthz", process)
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{operations_port}"
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


def _one_after_the_other(case: Case) -> dict[str, Figures]:
    headers = {"authorization": f"Bearer {case.key}"}
    with httpx.Client(base_url=case.url, headers=headers, timeout=120) as http:
        created: list[str] = []
        training_file = _upload(http)

        def create() -> None:
            answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": training_file})
            created.append(answer.raise_for_status().json()["id"])

        asks: dict[str, Callable[[], object]] = {
            "list jobs": lambda: http.get("/v1/fine_tuning/jobs").raise_for_status(),
            "jobs by metadata": lambda: http.get("/v1/fine_tuning/jobs?metadata[run]=500").raise_for_status(),
            "list models": lambda: http.get("/v1/models?limit=100").raise_for_status(),
            "list files": lambda: http.get("/v1/files?limit=100").raise_for_status(),
            "events of a job": lambda: http.get("/v1/fine_tuning/jobs/ftjob-0/events").raise_for_status(),
            "create a job": create,
            "metrics": lambda: httpx.get(f"{case.operations_url}/metrics", timeout=120).raise_for_status(),
            "readyz": lambda: httpx.get(f"{case.operations_url}/readyz").raise_for_status(),
        }
        figures = {name: _timed(ask) for name, ask in asks.items()}
        files = iter([_upload(http) for _ in range(ROUNDS + 1)])
        figures["delete a file"] = _timed(lambda: http.delete(f"/v1/files/{next(files)}").raise_for_status())
        return figures


def _upload(http: httpx.Client) -> str:
    content = secrets.token_bytes(100)
    answer = http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", content)})
    return str(answer.raise_for_status().json()["id"])


def _timed(ask: Callable[[], object]) -> Figures:
    ask()
    milliseconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        ask()
        milliseconds.append(1000 * (time.perf_counter() - started))
    return Figures(round(statistics.median(milliseconds), 1), round(max(milliseconds), 1))


def _put_to_work(services: Services) -> list[str]:
    """As many jobs as there are workers, each held by one; gives the tokens of their attempts."""
    tokens = [f"attempt_{number}" for number in range(WORKERS)]
    with services.database.transaction() as session:
        for number, token in enumerate(tokens):
            held = {"attempt_token": token, "attempt_kind": "train", "worker_key_hash": sha256_hex(WORKER_KEY)}
            job = update(Job).where(Job.id == f"ftjob-{number}")
            session.execute(job.values(phase="training", lease_until=services.clock() + 1e6, **held))
    return tokens


if __name__ == "__main__":
    main()
