"""What requests cost when the database is full: `python -m bench.scale`.

Populates a database with so many jobs (12 events each, a tenth of them released), then asks a real gateway process on
127.0.0.1: one request after the other, and many clients at once. PostgreSQL is started for it from the binaries on
PATH, without any care for durability. The last line is one JSON object. Latencies are by the clock, so read them beside
the smaller size of the same run; processor time is the gateway process's alone, whatever client and database take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx
from pydantic import SecretStr
from sqlalchemy import update

from bench.scale.load import WORKER_KEY, beat, read_at_once
from bench.scale.percentiles import Percentiles
from bench.scale.population import populate
from bench.scale.serving import Served, postgres, served, vacuum
from gateway.app import build_services
from gateway.dependencies import Services
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
from tests.gateway.checked_bases import check_base_models

TOKENS = {"trainer_token": "t" * 40, "evaluator_token": "e" * 40}
MODEL = "smollm2-135m-instruct"
ROUNDS = 200
CLIENTS = 400
WORKERS = 500
BEAT_SECONDS = 10.0


class Figures(NamedTuple):
    """Of one request after the other."""

    milliseconds: Percentiles
    cpu_milliseconds: float
    """Of the gateway, for each."""


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
        check_base_models(services)
        key, tokens = _fill(services, n_jobs), _put_to_work(services)
    finally:
        services.database.close()
    print(f"{n_jobs} jobs written in {time.monotonic() - started:.0f} s", file=sys.stderr)
    with served(settings, TOKENS) as gateway:
        requests = {name: _described(figures) for name, figures in _one_after_the_other(gateway, key).items()}
        started = gateway.cpu_seconds()
        readers = asyncio.run(read_at_once(gateway.url, key, clients=CLIENTS))
        read = gateway.cpu_seconds()
        workers = asyncio.run(beat(gateway.url, tokens, credential=TOKENS["trainer_token"], every_seconds=BEAT_SECONDS))
        beaten = gateway.cpu_seconds()
    return {
        "requests": requests,
        "at_once": {
            "clients": CLIENTS,
            "a_second": readers.a_second,
            "cpu_milliseconds": round(1000 * (read - started) / readers.outcomes.total(), 2),
            "outcomes": dict(readers.outcomes),
            "healthz": Percentiles.of(readers.health_milliseconds)._asdict(),
        },
        "heartbeats": {
            "workers": WORKERS,
            "cpu_milliseconds": round(1000 * (beaten - read) / len(workers), 2),
            "milliseconds": Percentiles.of(workers)._asdict(),
        },
    }


def _described(figures: Figures) -> dict[str, object]:
    return {"milliseconds": figures.milliseconds._asdict(), "cpu_milliseconds": figures.cpu_milliseconds}


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
    vacuum(services.database.engine)
    for now in (0.0, 2 * SETTLED_SECONDS):
        roll_up(replace(services, clock=partial(float, now)), SERIES)
    with services.database.transaction() as session:
        return create_key(session, session.get_one(Tenant, tenant_id), now=services.now()).secret


def _one_after_the_other(gateway: Served, key: str) -> dict[str, Figures]:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=120) as http:
        created: list[str] = []
        training_file = _upload(http)

        def create() -> None:
            answer = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": training_file})
            created.append(answer.raise_for_status().json()["id"])

        asks: dict[str, Callable[[], object]] = {
            "healthz": lambda: http.get("/healthz").raise_for_status(),
            "a job": lambda: http.get("/v1/fine_tuning/jobs/ftjob-0").raise_for_status(),
            "list jobs": lambda: http.get("/v1/fine_tuning/jobs").raise_for_status(),
            "jobs by metadata": lambda: http.get("/v1/fine_tuning/jobs?metadata[run]=500").raise_for_status(),
            "list models": lambda: http.get("/v1/models?limit=100").raise_for_status(),
            "list files": lambda: http.get("/v1/files?limit=100").raise_for_status(),
            "events of a job": lambda: http.get("/v1/fine_tuning/jobs/ftjob-0/events").raise_for_status(),
            "upload a file": lambda: _upload(http),
            "create a job": create,
            "metrics": lambda: httpx.get(f"{gateway.operations_url}/metrics", timeout=120).raise_for_status(),
            "readyz": lambda: httpx.get(f"{gateway.operations_url}/readyz").raise_for_status(),
        }
        figures = {name: _timed(gateway, ask) for name, ask in asks.items()}
        files = iter([_upload(http) for _ in range(ROUNDS + 1)])
        figures["delete a file"] = _timed(gateway, lambda: http.delete(f"/v1/files/{next(files)}").raise_for_status())
        return figures


def _upload(http: httpx.Client) -> str:
    content = secrets.token_bytes(100)
    answer = http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", content)})
    return str(answer.raise_for_status().json()["id"])


def _timed(gateway: Served, ask: Callable[[], object]) -> Figures:
    ask()
    milliseconds = []
    cpu_seconds = gateway.cpu_seconds()
    for _ in range(ROUNDS):
        started = time.perf_counter()
        ask()
        milliseconds.append(1000 * (time.perf_counter() - started))
    cpu_seconds = gateway.cpu_seconds() - cpu_seconds
    return Figures(Percentiles.of(milliseconds), round(1000 * cpu_seconds / ROUNDS, 2))


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
