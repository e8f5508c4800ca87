"""Schemathesis against a live gateway that holds a released model, its job, report and files.

`python -m tests.gateway.fuzz` runs it on each database and prints what it found (`make fuzz`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import structlog

from policies.contract.worker_api import Outcome
from tests.gateway.conftest import LiveGateway, gateway_settings, run_gateway
from tests.gateway.databases import KINDS, Databases, SqliteDatabases, postgres_databases
from tests.gateway.hand_worker import HandWorker, job_row, policy_under, submit_queued
from tests.gateway.records import report_on, store_evaluation, training_record

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
EXAMPLES = 520
MIN_CASES = 10_000
"""Of a run with as many examples, on each database."""


NO_SHARES = dict.fromkeys(("requests_per_minute", "open_uploads", "jobs_under_way"), 10**6)
"""Of one tenant, who sends all requests of a run by a clock that stands still."""


class FuzzReport(NamedTuple):
    """What Schemathesis says of a run."""

    n_cases: int
    failures: tuple[str, ...]
    """Kind and operations of each."""
    errors: tuple[str, ...]
    """What it could not do."""
    output: str


@contextmanager
def populated_gateway(databases: Databases) -> Iterator[tuple[LiveGateway, str]]:
    """A gateway with one released model, and the key of its tenant."""
    with (
        TemporaryDirectory() as folder,
        databases.migrated() as url,
        run_gateway(gateway_settings(Path(folder), database_url=url, **NO_SHARES)) as gateway,
    ):
        key = gateway.tenant_key()
        client, worker = gateway.client(key), HandWorker(gateway)
        job_id = submit_queued(gateway, client, suffix="fuzzed", metadata={"a": "b"})
        _train(gateway, worker, job_id)
        worker.close()
        yield gateway, key


def _train(gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    """As far as a release, with an adapter that can be downloaded."""
    store, claim = gateway.services.stores.of_job(job_id), worker.must_claim(job_id)
    record = training_record(claim.spec, store)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(record))
    policy, claim = policy_under(gateway.services, job_id), worker.must_claim(job_id, "evaluate")
    report, decision = store_evaluation(store, report_on(record, policy), policy, spec=claim.spec.digest)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=report, decision=decision)
    assert job_row(gateway.services, job_id).fine_tuned_model is not None


def fuzz(gateway: LiveGateway, key: str, *options: str) -> FuzzReport:
    """Every check of Schemathesis on every operation of the tenants' API."""
    with TemporaryDirectory() as folder:
        command = [
            *(SCHEMATHESIS, "--config-file", str(CONFIGURATION), "--no-color"),
            *("run", f"{gateway.url}/openapi.json", "--checks", "all", "--header", f"Authorization: Bearer {key}"),
            *("--report", "json", "--report-json-path", f"{folder}/report.json", "--continue-on-failure", *options),
        ]
        client = gateway.client(key)
        file_id = client.files.list(purpose="fine-tune").data[0].id
        open_upload, complete = (
            client.uploads.create(bytes=2, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune").id
            for _ in range(2)
        )
        part = client.uploads.parts.create(complete, data=b"{}").id
        names = {"SCHEMATHESIS_HOOKS": str(HOOKS), "FUZZED_FILE": file_id}
        names |= {"FUZZED_UPLOAD": open_upload, "FUZZED_PART": f"{complete} {part}"}
        ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | names, check=False)
        output = ended.stdout + ended.stderr
        report = json.loads(Path(folder, "report.json").read_text())
    failures = tuple(f"{each['title']}: {', '.join(each['operations'])}" for each in report["failures"])
    errors = tuple(f"{each['title']}: {', '.join(each.get('operations', ()))}" for each in report.get("errors", ()))
    return FuzzReport(report["test_cases"]["generated"], failures, errors, output)


@contextmanager
def databases_of(kind: str) -> Iterator[Databases]:
    if kind == "sqlite":
        with TemporaryDirectory() as folder:
            yield SqliteDatabases(Path(folder))
    else:
        with postgres_databases() as databases:
            yield databases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="at most so many cases an operation and phase")
    parser.add_argument("--database", choices=KINDS, action="append")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    reports = []
    for kind in arguments.database or KINDS:
        with databases_of(kind) as databases, populated_gateway(databases) as (gateway, key):
            report = fuzz(gateway, key, "--max-examples", str(arguments.examples))
        print(report.output)
        print(f"{kind}: {report.n_cases} cases, {len(report.failures)} failures, {len(report.errors)} errors")
        reports.append(report)
    too_few = any(report.n_cases < MIN_CASES for report in reports) and arguments.examples >= EXAMPLES
    sys.exit(too_few or any(report.failures or report.errors for report in reports))


if __name__ == "__main__":
    main()
