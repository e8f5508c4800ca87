"""Queries on files. What is deleted, expired or another tenant's is not found."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, exists, func, or_, select, update
from sqlalchemy.orm import Session

from gateway.errors import NotFound
from gateway.kit.pagination import Cursor, Keyset, Page, fetch_page
from gateway.tables.files import File, LineageFile
from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest
from policies.contract.jobs import Phase

_KEYSET = Keyset((File.created_at, File.id), File.id)


def tenants_file(session: Session, tenant_id: str, *, file_id: str, now: int) -> File:
    file = session.scalar(_live_files(tenant_id, now).where(File.id == file_id))
    if file is None:
        raise NotFound(f"No such File object: {file_id}", "id", "file_not_found")
    return file


def list_files(session: Session, tenant_id: str, *, purpose: str | None, cursor: Cursor, now: int) -> Page[File]:
    rows = _live_files(tenant_id, now)
    if purpose is not None:
        rows = rows.where(File.purpose == purpose)
    anchors = select(File).where(File.tenant_id == tenant_id)
    return fetch_page(session, rows, keyset=_KEYSET, cursor=cursor, anchors=anchors)


class DeletedFile(NamedTuple):
    """What is left to do about a file that was deleted."""

    tenant_id: str
    size_bytes: int
    digest: Digest


def delete(session: Session, which: ColumnElement[bool], now: int) -> list[DeletedFile]:
    """Mark files as deleted, and give those that were not so before: each of them once, whoever else deletes it now."""
    rows = session.execute(
        update(File)
        .where(File.deleted_at.is_(None), which)
        .values(deleted_at=now)
        .returning(File.tenant_id, File.size_bytes, File.digest)
        .execution_options(synchronize_session=False)
    )
    return [DeletedFile(*row) for row in rows]


def lock_digest(session: Session, digest: Digest) -> None:
    """Until the transaction ends, nobody else gains or loses a claim to these bytes. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(digest, 0))))


def is_needed(session: Session, digest: Digest, now: int) -> bool:
    """Whether a file that can be read, or a job that is not over, still stands on these bytes."""
    ended = [phase.value for phase in Phase if phase.is_terminal]
    used = (Job.training_file == File.id) | (Job.validation_file == File.id)
    claims = (
        exists().where(File.digest == digest, _is_live(now)),
        exists().where(File.digest == digest, used, Job.phase.not_in(ended)),
        exists().where(LineageFile.digest == digest, LineageFile.job_id == Job.id, Job.phase.not_in(ended)),
    )
    return bool(session.scalar(select(or_(*claims))))


def _live_files(tenant_id: str, now: int) -> Select[File]:
    return select(File).where(File.tenant_id == tenant_id, _is_live(now))


def _is_live(now: int) -> ColumnElement[bool]:
    return File.deleted_at.is_(None) & or_(File.expires_at.is_(None), File.expires_at > now)
