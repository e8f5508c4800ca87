"""Events of jobs that ended long ago become records: what is shown stays the same, and no crash loses a line."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from sqlalchemy import Engine, event, func, select
from structlog.typing import EventDict

from gateway.app import build_services
from gateway.dependencies import Services
from gateway.errors import InvalidRequest
from gateway.jobs.event_records import BATCH, move_events, recorded_page
from gateway.jobs.events import record_event
from gateway.jobs.retention import CLAIM_SECONDS, DAY_SECONDS, sweep_due_jobs
from gateway.kit.pagination import Cursor
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job, JobEvent
from gateway.tables.statistics import Sweep
from policies.contract.artifacts import digest_bytes
from policies.contract.events import StoredEvent
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import HandWorker, job_row, submit_queued

POLICY = """\
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: short, version: "1"}
spec:
  retention: {events_days: 5}
  suite: {probes: [{probe: coherence}]}
  rules: [{id: coherence, metric: coherence.incoherent_rate, max_increase_over_base: 0.1}]
"""
EVENTS_DAYS = 5
N_LINES = 2 * BATCH + 7
"""Of a long log; a few more come of its phases."""
Shown = list[dict[str, Any]]  # Any: the API's JSON


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "short.yaml").write_text(POLICY)
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key(policy="short"))


def ended(gateway: LiveGateway, client: OpenAI, n_lines: int = 3) -> str:
    """A cancelled job with so many lines of its worker."""
    job_id = submit_queued(gateway, client)
    with gateway.services.database.transaction() as session:
        job = session.get_one(Job, job_id)
        for n in range(n_lines):
            data = {"step": n, "loss": 0.1 + n, "text": "ü \u2028\n "}
            record_event(session, job, f"line\n{n}", now=gateway.clock(), data=data)
    client.fine_tuning.jobs.cancel(job_id)
    return job_id


def page(gateway: LiveGateway, client: OpenAI, job_id: str, **query: str | int) -> httpx.Response:
    headers = {"authorization": f"Bearer {client.api_key}"}
    return httpx.get(f"{gateway.url}/v1/fine_tuning/jobs/{job_id}/events", params=query, headers=headers)


def shown(gateway: LiveGateway, client: OpenAI, job_id: str, *, limit: int = 100) -> list[Shown]:
    """All pages of the log."""
    pages: list[Shown] = []
    query: dict[str, str | int] = {"limit": limit}
    while True:
        answer = page(gateway, client, job_id, **query).raise_for_status().json()
        pages.append(answer["data"])
        assert not pages[1:] or answer["data"]
        if not answer["has_more"]:
            return pages
        query["after"] = answer["data"][-1]["id"]


def n_rows(services: Services, job_id: str) -> int:
    with services.database.reading() as session:
        return session.scalar(select(func.count()).where(JobEvent.job_id == job_id)) or 0


def pass_time(gateway: LiveGateway, seconds: float) -> None:
    gateway.clock.advance(seconds)
    sweep_due_jobs(gateway.services)


def test_the_record_gives_the_pages_that_the_rows_gave(
    live_gateway: LiveGateway, client: OpenAI, quiet_log: list[EventDict]
) -> None:
    job_id, services = ended(live_gateway, client, N_LINES), live_gateway.services
    before = {limit: shown(live_gateway, client, job_id, limit=limit) for limit in (100, 41)}
    count = n_rows(services, job_id)
    assert count == sum(map(len, before[100])) > N_LINES
    pass_time(live_gateway, EVENTS_DAYS * DAY_SECONDS)
    assert n_rows(services, job_id) == count
    pass_time(live_gateway, CLAIM_SECONDS)
    assert n_rows(services, job_id) == 0
    assert {limit: shown(live_gateway, client, job_id, limit=limit) for limit in (100, 41)} == before
    unknown = page(live_gateway, client, job_id, after="ftevent-unknown")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "after")
    assert job_row(services, job_id).sweep_at is None
    assert f"tunegate_swept_events_total {float(count)}" in live_gateway.ask_operations("/metrics").text
    assert [entry for entry in quiet_log if entry["event"] == "sweep_failed"] == []


def test_rows_stay_as_long_as_the_policy_says_and_the_record_for_good(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    job_id, services = ended(live_gateway, client), live_gateway.services
    before = shown(live_gateway, client, job_id)
    pass_time(live_gateway, EVENTS_DAYS * DAY_SECONDS - 1)
    assert job_row(services, job_id).events_digest is None
    pass_time(live_gateway, 1)
    assert job_row(services, job_id).events_digest is not None
    for _ in range(5):
        pass_time(live_gateway, 100 * DAY_SECONDS)
    assert n_rows(services, job_id) == 0
    assert shown(live_gateway, client, job_id) == before


def test_a_job_that_has_not_ended_keeps_its_rows(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> None:
    job_id = submit_queued(live_gateway, client)
    with live_gateway.services.database.transaction() as session:
        session.get_one(Job, job_id).sweep_at = live_gateway.clock()
    pass_time(live_gateway, 100 * DAY_SECONDS)
    assert job_row(live_gateway.services, job_id).events_digest is None
    with pytest.raises(IntegrityError, match="more events may come"):
        move_events(live_gateway.services, job_id)


def test_nothing_is_added_to_a_log_that_is_a_record(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = ended(live_gateway, client)
    move_events(live_gateway.services, job_id)
    with live_gateway.services.database.transaction() as session, pytest.raises(AssertionError, match="takes no more"):
        record_event(session, session.get_one(Job, job_id), "too late", now=live_gateway.clock())


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crash_at(nth: int) -> Iterator[list[str]]:
    """End the process before its nth statement or commit; the list is what came before."""
    passed: list[str] = []

    def look(*arguments: object) -> None:
        if len(passed) == nth:
            raise Crash
        passed.append(str(arguments[2]) if len(arguments) > 2 else "COMMIT")

    event.listen(Engine, "before_cursor_execute", look)
    event.listen(Engine, "commit", look)
    try:
        yield passed
    finally:
        event.remove(Engine, "before_cursor_execute", look)
        event.remove(Engine, "commit", look)


def test_a_crash_at_any_point_loses_no_line(live_gateway: LiveGateway, client: OpenAI) -> None:
    """After each crash the log is shown whole, and the visits that follow end the move."""
    services = live_gateway.services
    for nth in range(1000):
        job_id = ended(live_gateway, client, 3)
        before = shown(live_gateway, client, job_id)
        with crash_at(nth) as passed:
            try:
                while not move_events(services, job_id):
                    pass
                is_over = True
            except Crash:
                is_over = False
        assert shown(live_gateway, client, job_id) == before, passed
        while not move_events(services, job_id):
            assert shown(live_gateway, client, job_id) == before, passed
        assert shown(live_gateway, client, job_id) == before, passed
        assert n_rows(services, job_id) == 0
        if is_over:
            break
    assert 8 < nth < 100


def test_a_crash_between_two_batches_goes_on_with_the_rest(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id, services = ended(live_gateway, client, N_LINES), live_gateway.services
    before = shown(live_gateway, client, job_id)
    assert not move_events(services, job_id)
    deleted = 0

    def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal deleted
        deleted += statement.startswith("DELETE FROM job_events")
        if deleted == 2:
            raise Crash

    event.listen(Engine, "before_cursor_execute", look)
    try:
        with pytest.raises(Crash):
            move_events(services, job_id)
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    assert 0 < n_rows(services, job_id) < N_LINES
    assert shown(live_gateway, client, job_id) == before
    assert move_events(services, job_id)
    assert shown(live_gateway, client, job_id) == before
    with services.database.reading() as session:
        assert session.scalar(select(func.sum(Sweep.n_events))) == sum(map(len, before))


def test_a_record_that_was_deleted_meanwhile_is_written_again(live_gateway: LiveGateway, client: OpenAI) -> None:
    """A sweep that had planned before the record was named may still be at work on the job's store."""
    job_id, services = ended(live_gateway, client), live_gateway.services
    before = shown(live_gateway, client, job_id)
    assert not move_events(services, job_id)
    digest = job_row(services, job_id).events_digest
    assert digest is not None
    services.stores.of_job(job_id).delete(digest)
    assert not move_events(services, job_id)
    assert move_events(services, job_id)
    assert shown(live_gateway, client, job_id) == before


def test_a_sweep_whose_claim_has_run_out_deletes_nothing_more(live_gateway: LiveGateway, client: OpenAI) -> None:
    """It takes so long over each step that others have claimed the job by then, and may have named what it saw."""
    job_id, services = ended(live_gateway, client), live_gateway.services
    unknown = services.stores.of_job(job_id).put_bytes(b"nobody names it")
    live_gateway.clock.advance(2 * DAY_SECONDS)

    def slow_clock() -> float:
        live_gateway.clock.advance(CLAIM_SECONDS / 3)
        return live_gateway.clock()

    sweep_due_jobs(replace(services, clock=slow_clock))
    assert services.stores.of_job(job_id).exists(unknown)
    sweep_due_jobs(services)
    assert not services.stores.of_job(job_id).exists(unknown)


def test_rows_stay_where_their_record_is_damaged(
    live_gateway: LiveGateway, client: OpenAI, quiet_log: list[EventDict]
) -> None:
    job_id, services = ended(live_gateway, client), live_gateway.services
    pass_time(live_gateway, EVENTS_DAYS * DAY_SECONDS)
    digest = job_row(services, job_id).events_digest
    assert digest is not None
    name = digest.removeprefix("sha256:")
    path = Path(services.stores.of_job(job_id).url.removeprefix("file://"), "sha256", name[:2], name)
    path.write_bytes(path.read_bytes().replace(b"line", b"lime"))
    count = n_rows(services, job_id)
    for _ in range(3):
        pass_time(live_gateway, CLAIM_SECONDS)
    assert n_rows(services, job_id) == count
    assert {entry["job_id"] for entry in quiet_log if entry["event"] == "sweep_failed"} == {job_id}
    path.unlink()
    pass_time(live_gateway, CLAIM_SECONDS)
    pass_time(live_gateway, CLAIM_SECONDS)
    assert n_rows(services, job_id) == 0


def test_rows_that_are_left_stay_where_the_record_of_the_others_is_gone(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    job_id, services = ended(live_gateway, client), live_gateway.services
    move_events(services, job_id)
    digest = job_row(services, job_id).events_digest
    assert digest is not None
    services.stores.of_job(job_id).delete(digest)
    with services.database.transaction() as session:
        session.delete(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id)).first())
    count = n_rows(services, job_id)
    with pytest.raises(IntegrityError, match="is not in its store"):
        move_events(services, job_id)
    assert n_rows(services, job_id) == count > 0


def test_several_workers_at_once_lose_and_double_nothing(live_gateway: LiveGateway, client: OpenAI) -> None:
    jobs = [ended(live_gateway, client, 5) for _ in range(6)]
    before = {job_id: shown(live_gateway, client, job_id) for job_id in jobs}
    live_gateway.clock.advance(EVENTS_DAYS * DAY_SECONDS)
    others = [build_services(live_gateway.services.settings, live_gateway.clock) for _ in range(3)]

    def visit(services: Services) -> None:
        sweep_due_jobs(services)
        for job_id in jobs:
            move_events(services, job_id)

    with ThreadPoolExecutor(len(others)) as threads:
        for _ in range(3):
            list(threads.map(visit, others))
            assert {job_id: shown(live_gateway, client, job_id) for job_id in jobs} == before
    for services in others:
        services.database.close()
    assert [n_rows(live_gateway.services, job_id) for job_id in jobs] == [0] * len(jobs)


@given(n_events=st.integers(0, 30), limit=st.integers(1, 12), data=st.data())
def test_pages_of_a_record_are_slices_of_the_log(n_events: int, limit: int, data: st.DataObject) -> None:
    events = [
        StoredEvent(sequence=n, id=f"e{n}", created_at=n, level="info", message="m", type="message", data=None)
        for n in range(n_events)
    ]
    store = ArtifactStore("memory://events")
    digest = store.put_bytes(b"".join(each.canonical() + b"\n" for each in events))
    after = data.draw(st.none() | st.integers(0, n_events))
    cursor = Cursor(limit, None if after is None else f"e{after}")
    if after == n_events:
        with pytest.raises(InvalidRequest):
            recorded_page(store, digest, cursor)
        return
    wanted = events[:after][::-1]
    assert recorded_page(store, digest, cursor) == (wanted[:limit], len(wanted) > limit)


def test_a_damaged_record_is_not_shown(live_gateway: LiveGateway) -> None:
    store = live_gateway.services.stores.shared
    with pytest.raises(LookupError):
        recorded_page(store, digest_bytes(b"no record"), Cursor(10))
