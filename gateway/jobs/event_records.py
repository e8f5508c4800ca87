"""The events of jobs that ended long ago: from rows into one record of the job's store, and read from there.

Rows are deleted two visits after the move was begun: the first writes the record and commits its digest, the second,
some time later, reads the record whole and only then deletes the rows that it names. A sweep that had planned what to
delete before that digest was there has ended by then, and a crash at any point repeats a step that changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from sqlalchemy import CursorResult, delete, exists, select

from gateway.dependencies import Services
from gateway.jobs.repository import lock_job
from gateway.kit.pagination import Cursor, Page, unknown_place
from gateway.tables.jobs import Job, JobEvent
from gateway.tables.statistics import Sweep
from policies.contract.artifacts import Digest
from policies.contract.events import StoredEvent
from policies.contract.jobs import Phase
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError

BATCH = 200
"""Rows that one transaction reads or deletes."""


def move_events(services: Services, job_id: str) -> bool:
    """One visit to a job that has ended; gives whether no row is left.

    Raises:
        IntegrityError: the record of rows that are deleted in part can't be read; the others stay.
    """
    with services.database.reading() as session:
        digest = session.get_one(Job, job_id).events_digest
        has_rows = bool(session.scalar(select(exists().where(JobEvent.job_id == job_id))))
    if not has_rows:
        return True
    store = services.stores.of_job(job_id)
    if digest is None or not store.exists(digest):
        _keep(services, store, job_id)
        return False
    _delete_rows(services, job_id, [event.sequence for event in _read(store, digest)])
    return True


def _keep(services: Services, store: ArtifactStore, job_id: str) -> None:
    """Write the record, and name it in the job's row; who finds it named writes the same one again."""
    with store.writer() as writer:
        for event in _events(services, job_id):
            writer.write(event.canonical() + b"\n")
    with services.database.transaction() as session:
        job = lock_job(session, job_id)
        assert job is not None
        if not Phase(job.phase).is_terminal:
            raise IntegrityError(f"job {job_id} is {job.phase}, so more events may come")
        if job.events_digest not in (None, writer.digest):
            raise IntegrityError(f"the record of job {job_id}'s events, {job.events_digest}, is not in its store")
        job.events_digest = writer.digest


def _events(services: Services, job_id: str) -> Iterator[StoredEvent]:
    """In pages, so that neither memory nor a transaction is as long as the log."""
    last = 0
    while True:
        page = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.sequence > last)
        with services.database.reading() as session:
            rows = session.scalars(page.order_by(JobEvent.sequence).limit(BATCH)).all()
        yield from (StoredEvent(**{name: getattr(row, name) for name in StoredEvent.model_fields}) for row in rows)
        if len(rows) < BATCH:
            return
        last = rows[-1].sequence


def _delete_rows(services: Services, job_id: str, sequences: Sequence[int]) -> None:
    for start in range(0, len(sequences), BATCH):
        named = JobEvent.sequence.in_(sequences[start : start + BATCH])
        with services.database.transaction() as session:
            result = session.execute(delete(JobEvent).where(JobEvent.job_id == job_id, named))
            assert isinstance(result, CursorResult)
            session.add(Sweep(n_artifacts=0, n_bytes=0, n_events=result.rowcount, at=services.clock()))


def recorded_page(store: ArtifactStore, digest: Digest, cursor: Cursor) -> Page[StoredEvent]:
    """What `fetch_page` gave while the events were rows: newest first, after the one that the cursor names.

    The record is read to its end, because only there is known that it is the one that was kept.
    """
    before = deque[StoredEvent](maxlen=cursor.limit + 1)
    is_found = cursor.after is None
    anchored = False
    for event in _read(store, digest):
        if event.id == cursor.after:
            is_found = anchored = True
        if not anchored:
            before.append(event)
    if not is_found:
        raise unknown_place(cursor)
    newest_first = list(reversed(before))
    return Page(newest_first[: cursor.limit], len(newest_first) > cursor.limit)


def _read(store: ArtifactStore, digest: Digest) -> Iterator[StoredEvent]:
    with store.open(digest) as stream:
        for line in stream:
            yield StoredEvent.model_validate_json(line)
