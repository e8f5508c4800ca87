"""What is asked again and again reads what it needs and no table whole, by SQLite's own plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from gateway.db import Database
from gateway.files.repository import is_needed
from gateway.fine_tuning.listing import list_jobs
from gateway.jobs.fingerprints import latest, likely
from gateway.kit.pagination import Cursor
from gateway.metrics.families import SERIES, job_families
from gateway.metrics.rollups import totals
from gateway.tenants.organisations import lock_organisation
from gateway.uploads.repository import claim, ended_with_parts, has_part_of, over_with_bytes, parts_of
from policies.datasets.fingerprint import DatasetFingerprint
from tests.gateway.databases import migrated_file

Ask = Callable[[Session], object]
TENANTS = ("org-1", "org-2")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "gateway.db"
    path.write_bytes(migrated_file())
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


def steps(database: Database, ask: Ask) -> list[str]:
    """Of the plans of all queries that are sent."""
    found: list[str] = []

    def explain(connection: Connection, _: object, statement: str, parameters: tuple[object, ...], *__: object) -> None:
        if statement.startswith("SELECT"):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.extend(row.detail for row in rows)

    event.listen(database.engine, "after_cursor_execute", explain)
    with database.reading() as session:
        ask(session)
    return found


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: list_jobs(session, "org-1", cursor=Cursor(20), query=[("metadata[run]", "7")]),
        lambda session: is_needed(session, "sha256:" + "0" * 64, 0),
        lambda session: list(job_families(session, 0.0)),
        lambda session: [claim(session, found, 0.0, seconds=1.0) for found in (ended_with_parts(), over_with_bytes(0))],
        lambda session: [parts_of(session, "upload_1"), has_part_of(session, "upload_1", "sha256:0")],
        lambda session: [totals(session, series) for series in SERIES],
        lambda session: lock_organisation(session, "org-1"),
        lambda session: latest(session, TENANTS),
    ],
    ids=[
        "a page of jobs by metadata",
        "a file is deleted",
        "jobs in /metrics",
        "uploads are swept",
        "parts of an upload",
        "sums in /metrics",
        "tenants of an organisation",
        "newest jobs of an organisation",
    ],
)
def test_no_table_that_grows_is_read_whole(database: Database, ask: Ask) -> None:
    plan = steps(database, ask)
    assert len(plan) > 1
    assert [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step] == []
    assert [step for step in plan if step.startswith("SCAN") and "CONSTANT ROW" not in step] == []


def test_fingerprints_of_an_organisation_are_found_by_tenant_and_hash(database: Database) -> None:
    plan = steps(database, lambda session: likely(session, TENANTS, DatasetFingerprint(hashes=(1, 2))))
    assert any("SEARCH fingerprint_anchors USING" in step and "(tenant_id=? AND hash=?" in step for step in plan)
