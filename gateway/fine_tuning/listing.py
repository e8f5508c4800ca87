"""Lists of a tenant: jobs with the metadata filter, events and checkpoints, newest first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from gateway.errors import InvalidRequest
from gateway.fine_tuning.schemas import MAX_KEY_LENGTH, MAX_METADATA_PAIRS, MAX_VALUE_LENGTH
from gateway.jobs.event_records import recorded_page
from gateway.kit.pagination import Cursor, Keyset, Page, fetch_page
from gateway.tables.jobs import Job, JobCheckpoint, JobEvent, JobMetadata
from policies.contract.events import StoredEvent
from policies.contract.store import ArtifactStores

_METADATA_PARAM = re.compile(r"metadata\[(.*)\]", re.DOTALL)

METADATA_FILTER: dict[str, Any] = {  # Any: a piece of OpenAPI
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "`metadata[key]=value`, up to 16 of them; `metadata=null` finds jobs without any.",
            "style": "deepObject",
            "explode": True,
            "schema": {
                "type": "object",
                "maxProperties": MAX_METADATA_PAIRS,
                "propertyNames": {"minLength": 1, "maxLength": MAX_KEY_LENGTH},
                "additionalProperties": {"type": "string", "maxLength": MAX_VALUE_LENGTH},
            },
        }
    ]
}
"""For the description of the API: the parameters have no fixed names, so the query is read by hand."""


def list_jobs(session: Session, tenant_id: str, *, cursor: Cursor, query: Iterable[tuple[str, str]]) -> Page[Job]:
    """`query` is the query string, of which `metadata[key]=value` and `metadata=null` filter."""
    own, by_age = select(Job).where(Job.tenant_id == tenant_id), Keyset((Job.created_at, Job.id), Job.id)
    pairs, rows = _metadata_filters(query), own
    if None in pairs:
        rows = rows.where(Job.user_metadata.is_(None))
    found = [pair for pair in pairs if pair is not None]
    if len(found) == 1 and len(pairs) == 1:  # from the index of pairs, which has them in the order of the list
        rows = select(Job).join(JobMetadata, JobMetadata.job_id == Job.id).where(_is_pair(tenant_id, *found[0]))
        by_age = by_age._replace(copies=(JobMetadata.created_at, JobMetadata.job_id))
    else:
        for pair in found:
            rows = rows.where(Job.id.in_(select(JobMetadata.job_id).where(_is_pair(tenant_id, *pair))))
    return fetch_page(session, rows, keyset=by_age, cursor=cursor, anchors=own)


def list_events(
    session: Session, stores: ArtifactStores, *, job: Job, cursor: Cursor
) -> Page[JobEvent] | Page[StoredEvent]:
    """From the rows, or from the record that takes their place long after the job's end."""
    if job.events_digest is not None:
        return recorded_page(stores.of_job(job.id), job.events_digest, cursor)
    rows = select(JobEvent).where(JobEvent.job_id == job.id)
    return fetch_page(session, rows, keyset=Keyset((JobEvent.sequence,), JobEvent.id), cursor=cursor)


def list_checkpoints(session: Session, job: Job, cursor: Cursor) -> Page[JobCheckpoint]:
    rows = select(JobCheckpoint).where(JobCheckpoint.job_id == job.id)
    return fetch_page(session, rows, keyset=Keyset((JobCheckpoint.step,), JobCheckpoint.id), cursor=cursor)


def _is_pair(tenant_id: str, key: str, value: str) -> ColumnElement[bool]:
    """The tenant by its id and not by the job's column: jobs are found by the pair, and not pairs for each job."""
    return and_(JobMetadata.tenant_id == tenant_id, JobMetadata.key == key, JobMetadata.value == value)


def _metadata_filters(query: Iterable[tuple[str, str]]) -> list[tuple[str, str] | None]:
    """The pairs that a job must have; None: it must have none."""
    filters = [(name, value) for name, value in query if name.startswith("metadata")]
    if len(filters) > MAX_METADATA_PAIRS:
        message = f"metadata: {len(filters)} filters; a job has at most {MAX_METADATA_PAIRS} pairs."
        raise InvalidRequest(message, "metadata")
    pairs: list[tuple[str, str] | None] = []
    for name, value in filters:
        if name == "metadata":
            if value != "null":
                raise InvalidRequest("metadata: use metadata[key]=value, or metadata=null.", "metadata")
            pairs.append(None)
        elif match := _METADATA_PARAM.fullmatch(name):
            key = match[1]
            if not 1 <= len(key) <= MAX_KEY_LENGTH or len(value) > MAX_VALUE_LENGTH:
                message = f"metadata: keys have 1 to {MAX_KEY_LENGTH} characters, values at most {MAX_VALUE_LENGTH}."
                raise InvalidRequest(message, "metadata")
            if "][" in key:
                raise InvalidRequest(f"metadata: {name} names a key within a key; pairs are flat.", "metadata")
            pairs.append((key, value))
    return pairs
