"""What the search for earlier attempts costs, against the way before: `python -m bench.validation.retry_check`.

A tenant has earlier jobs, all of them evaluated without a release: on unrelated files, on files that share boilerplate,
or all on nearly the same file. Both ways look for those that count, in one process and in turn, in one database: one of
SQLite, or of a PostgreSQL that is started for it and vacuumed as autovacuum would do. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from sqlalchemy import JSON, Column, MetaData, String, Table, insert, select
from sqlalchemy.orm import Session

from bench.scale.serving import postgres, vacuum
from bench.validation import earlier_way
from gateway.app import build_services
from gateway.dependencies import Services
from gateway.jobs.earlier_attempts import MAX_COUNTED, earlier_attempts
from gateway.jobs.fingerprints import remember
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from gateway.tables.files import File
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from policies.contract.release import Decision
from policies.datasets.fingerprint import SKETCH_SIZE, DatasetFingerprint

BAR_MS = 50.0
"""Milliseconds at 10⁴ earlier jobs: the project's own goal."""
EARLIER = Table(
    "bench_fingerprints", MetaData(), Column("job_id", String(64), primary_key=True), Column("hashes", JSON)
)
TENANT = "org-bench"
SHARED = {"unrelated": 0.0, "boilerplate": 0.2, "nearly the same": 0.9}
"""Share of each file's elements that all files have, by case."""


class Figures(NamedTuple):
    """Of one case, in milliseconds by the clock."""

    case: str
    n_jobs: int
    before_ms: float
    now_ms: float
    found_before: int
    found_now: int
    """At most `MAX_COUNTED`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    arguments = parser.parse_args()
    rows = []
    for case in SHARED:
        with ExitStack() as stack:
            url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/bench.db"
            if arguments.database == "postgresql":
                url = stack.enter_context(postgres())
            rows.append(measured(case, url=url, n_jobs=arguments.jobs, rounds=arguments.rounds))
    print("| earlier jobs | number | before, ms | now, ms | counted before | counted now |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row) + " |")
    print(
        json.dumps(
            {
                "database": arguments.database,
                "bar_ms": BAR_MS,
                "rounds": arguments.rounds,
                "rows": [row._asdict() for row in rows],
            }
        )
    )


def measured(case: str, *, url: str, n_jobs: int, rounds: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        upgrade(url)
        settings = GatewaySettings.model_validate({"database_url": url, "store_url": f"file://{folder}/store"})
        services = build_services(settings)
        try:
            probe = populate(services, SHARED[case], n_jobs)
            vacuum(services.database.engine)
            old, new = lambda session: _before(session, probe), lambda session: _now(session, services, probe)
            times = [[_milliseconds(services, way) for way in (old, new)] for _ in range(rounds)]
        finally:
            services.database.engine.dispose()
    columns = [list(column) for column in zip(*times, strict=True)]
    before_ms, now_ms = (round(statistics.median(ms for ms, _ in column), 1) for column in columns)
    return Figures(case, n_jobs, before_ms, now_ms, columns[0][0][1], columns[1][0][1])


def populate(services: Services, shared: float, n_jobs: int) -> DatasetFingerprint:
    """Write the earlier jobs; returns the fingerprint of one file more of their kind."""
    generator = random.Random(1)
    common = _hashes(generator, round(shared * SKETCH_SIZE))
    with services.database.transaction() as session:
        EARLIER.create(session.connection())
        session.add(Tenant(id=TENANT, name="bench", policy="baseline", created_at=0))
        session.flush()
        session.add(_file())
        session.flush()
        for number in range(n_jobs):
            fingerprint = _fingerprint(generator, common)
            job = _job(services, number)
            session.add(job)
            session.flush()
            # as `number_attempt` does: what comes after so many takes no chance
            if shared < 0.5 or number < MAX_COUNTED:
                remember(session, job, fingerprint)
            hashes = list(fingerprint.hashes[: earlier_way.SKETCH_SIZE])
            session.execute(insert(EARLIER).values(job_id=job.id, hashes=hashes))
            if number % 500 == 499:
                session.flush()
                session.expunge_all()
    return _fingerprint(generator, common)


def _fingerprint(generator: random.Random, common: list[int]) -> DatasetFingerprint:
    own = _hashes(generator, SKETCH_SIZE - len(common))
    return DatasetFingerprint(hashes=tuple(sorted({*own, *common})))


def _hashes(generator: random.Random, count: int) -> list[int]:
    return [generator.getrandbits(64) for _ in range(count)]


def _file() -> File:
    return File(
        id="file-bench",
        tenant_id=TENANT,
        filename="rows.jsonl",
        purpose="fine-tune",
        size_bytes=1,
        digest="sha256:" + "0" * 64,
        status="processed",
        created_at=0,
    )


def _job(services: Services, number: int) -> Job:
    return Job(
        id=f"ftjob-{number:08}",
        tenant_id=TENANT,
        created_at=number,
        phase="awaiting_review",
        phase_since=float(number),
        model="bench",
        training_file="file-bench",
        seed=number,
        hyperparameters={},
        spec={},
        spec_digest="sha256:" + "0" * 64,
        policy_digest=services.policies.release_policy("baseline").digest,
        decision=Decision.INCONCLUSIVE.value,
        attempts=0,
    )


def _before(session: Session, probe: DatasetFingerprint) -> int:
    hashes = list(probe.hashes[: earlier_way.SKETCH_SIZE])
    rows = session.execute(select(Job.id, EARLIER.c.hashes).join(EARLIER, EARLIER.c.job_id == Job.id))
    near = [job_id for job_id, known in rows if earlier_way.similarity(hashes, known) >= earlier_way.NEAR_DUPLICATE]
    return len(near)


def _now(session: Session, services: Services, probe: DatasetFingerprint) -> int:
    return len(earlier_attempts(session, services, job=_job(services, 10**7), fingerprint=probe))


def _milliseconds(services: Services, way: Callable[[Session], int]) -> tuple[float, int]:
    with services.database.transaction() as session:
        start = time.perf_counter()
        found = way(session)
        return 1000 * (time.perf_counter() - start), found


if __name__ == "__main__":
    main()
