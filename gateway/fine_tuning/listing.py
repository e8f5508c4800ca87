"""Lists of a tenant: jobs with the metadata filter, events and checkpoints, newest first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, select
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
    own = select(Job).where(Job.tenant_id == tenant_id)
    filtered = _with_metadata(own, query, tenant_id=tenant_id)
    return fetch_page(session, filtered, keyset=Keyset((Job.created_at, Job.id), Job.id), cursor=cursor, anchors=own)


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


def _with_metadata(rows: Select[Job], query: Iterable[tuple[str, str]], *, tenant_id: str) -> Select[Job]:
    filters = [(name, value) for name, value in query if name.startswith("metadata")]
    if len(filters) > MAX_METADATA_PAIRS:
        message = f"metadata: {len(filters)} filters; a job has at most {MAX_METADATA_PAIRS} pairs."
        raise InvalidRequest(message, "metadata")
    for name, value in filters:
        if name == "metadata":
            if value != "null":
                raise InvalidRequest("metadata: use metadata[key]=value, or metadata=null.", "metadata")
            rows = rows.where(Job.user_metadata.is_(None))
        elif match := _METADATA_PARAM.fullmatch(name):
            key = match[1]
            if not 1 <= len(key) <= MAX_KEY_LENGTH or len(value) > MAX_VALUE_LENGTH:
                message = f"metadata: keys have 1 to {MAX_KEY_LENGTH} characters, values at most {MAX_VALUE_LENGTH}."
                raise InvalidRequest(message, "metadata")
            if "][" in key:
                raise InvalidRequest(f"metadata: {name} names a key within a key; pairs are flat.", "metadata")
            # the tenant by its id and not by the job's column: jobs are found by the pair, and not pairs for each job
            pair = (JobMetadata.tenant_id == tenant_id, JobMetadata.key == key, JobMetadata.value == value)
            rows = rows.where(Job.id.in_(select(JobMetadata.job_id).where(*pair)))
    return rows
