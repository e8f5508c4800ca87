"""A database as it is after many jobs, written by itself: tenants, files, jobs, events, models, verdicts."""

# ruff: noqa: S608  # statements of numbers, and of names that stand here

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from policies.contract.artifacts import digest_bytes

BATCH = 100_000
N_TENANTS = 10
EVENTS_PER_JOB = 12
FIRST_AT = 1_700_000_000
GIVEN = {
    "settings": '{"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 1.0}',
    "nothing": digest_bytes(b""),
    "model": "smollm2-135m-instruct",
}


class Dialect(NamedTuple):
    """How a database counts from :a to :b, and writes down what differs."""

    numbers: str
    events: str
    json: str


DIALECTS = {
    "postgresql": Dialect(
        "generate_series(CAST(:a AS int), CAST(:b AS int)) AS s(n)",
        f"generate_series(1, {EVENTS_PER_JOB}) AS e(k)",
        "CAST({0} AS json)",
    ),
    "sqlite": Dialect(
        "(WITH RECURSIVE s(n) AS (SELECT :a UNION ALL SELECT n + 1 FROM s WHERE n < :b) SELECT n FROM s)",
        f"(WITH RECURSIVE e(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM e WHERE k < {EVENTS_PER_JOB}) SELECT k FROM e)",
        "{0}",
    ),
}


def populate(connection: Connection, n_jobs: int, *, spec: str, policy: str) -> str:
    """Gives the tenant whose requests are measured: it has a tenth of everything. A tenth of the jobs was released.

    `spec` is the JSON of a job's spec, `policy` the digest of a stored policy.
    """
    for number in range(N_TENANTS):
        connection.execute(
            text("INSERT INTO tenants (id, name, policy, created_at) VALUES (:id, :id, 'baseline', :at)"),
            {"id": f"org-{number}", "at": FIRST_AT},
        )
    given = GIVEN | {"spec": spec, "policy": policy}
    for start in range(0, n_jobs, BATCH):
        values = given | {"a": start, "b": min(start + BATCH, n_jobs) - 1}
        for statement in _statements(DIALECTS[connection.dialect.name]):
            named = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(text(statement), named)
    return "org-0"


def _statements(dialect: Dialect) -> list[str]:
    numbers, tenant, at = dialect.numbers, f"'org-' || (n % {N_TENANTS})", f"{FIRST_AT} + n"
    phase = "CASE WHEN n % 10 = 0 THEN 'released' WHEN n % 3 = 0 THEN 'rejected' ELSE 'failed' END"
    decision = "CASE WHEN n % 10 = 0 THEN 'release' ELSE 'reject' END"
    settings, spec = dialect.json.format(":settings"), dialect.json.format(":spec")
    pair = dialect.json.format("'{\"run\": \"' || (n % 1000) || '\"}'")
    moved = "INSERT INTO phase_transitions (job_id, defense, phase_from, phase_to, seconds, at)"
    return [
        "INSERT INTO files (id, tenant_id, filename, purpose, size_bytes, digest, status, created_at)"
        f" SELECT 'file-' || n, {tenant}, 'rows.jsonl', 'fine-tune', 1000, 'digest of ' || n, 'processed', {at}"
        f" FROM {numbers}",
        "INSERT INTO jobs (id, tenant_id, created_at, finished_at, phase, phase_since, model, training_file, seed,"
        " hyperparameters, user_metadata, spec, spec_digest, policy_digest, attempts)"
        f" SELECT 'ftjob-' || n, {tenant}, {at}, {at}, {phase}, {at}, :model, 'file-' || n, 1,"
        f" {settings}, {pair}, {spec}, :nothing, :policy, 1 FROM {numbers}",
        "INSERT INTO job_metadata (job_id, key, tenant_id, value, created_at)"
        f" SELECT 'ftjob-' || n, 'run', {tenant}, '' || (n % 1000), {at} FROM {numbers}",
        "INSERT INTO job_events (id, job_id, created_at, level, message, type)"
        f" SELECT 'ftevent-' || n || '-' || k, 'ftjob-' || n, {at}, 'info', 'Step', 'message'"
        f" FROM {numbers}, {dialect.events}",
        f"{moved} SELECT 'ftjob-' || n, 'kl_penalty', 'evaluating', {phase}, n % 600, {at} FROM {numbers}",
        f"{moved} SELECT 'ftjob-' || n, 'kl_penalty', 'queued', 'training', n % 60, {at} FROM {numbers}",
        "INSERT INTO gate_results (job_id, policy, mode, decision, at)"
        f" SELECT 'ftjob-' || n, 'baseline', 'enforce', {decision}, {at} FROM {numbers}",
        "INSERT INTO models (id, tenant_id, job_id, adapter_digest, manifest_digest, created_at)"
        f" SELECT 'ft:m:' || n, {tenant}, 'ftjob-' || n, :nothing, :nothing, {at} FROM {numbers} WHERE n % 10 = 0",
    ]
