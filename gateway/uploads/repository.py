"""Queries on uploads in parts. Another tenant's is not found."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from gateway.errors import InvalidRequest, NotFound
from gateway.tables.files import File
from gateway.tables.uploads import ENDED, PENDING, Upload, UploadPart
from policies.contract.artifacts import Digest

REASONS = {
    "completed": ("upload_completed", "is completed; begin another upload for another file"),
    "cancelled": ("upload_cancelled", "is cancelled; begin another one"),
    "expired": ("upload_expired", "has expired, an hour after it began; begin another one"),
}
"""Why an upload takes nothing more: code, and what to say."""


def tenants_upload(session: Session, tenant_id: str, upload_id: str) -> Upload:
    upload = session.scalar(select(Upload).where(Upload.tenant_id == tenant_id, Upload.id == upload_id))
    if upload is None:
        raise NotFound(f"No such Upload object: {upload_id}", "upload_id", "upload_not_found")
    return upload


def require_pending(upload: Upload, now: int) -> None:
    status = "expired" if upload.status == PENDING and upload.expires_at <= now else upload.status
    if status != PENDING:
        code, words = REASONS[status]
        raise InvalidRequest(f"Upload {upload.id} {words}.", "upload_id", code)


def parts_of(session: Session, upload_id: str) -> dict[str, UploadPart]:
    """By id."""
    return {part.id: part for part in session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id))}


def has_part_of(session: Session, upload_id: str, digest: Digest) -> bool:
    """Whether a part that counts consists of these bytes."""
    return bool(session.scalar(select(exists().where(UploadPart.upload_id == upload_id, UploadPart.digest == digest))))


def file_of(session: Session, upload: Upload) -> File | None:
    """What became of a completed upload, unless its tenant has deleted it."""
    return session.scalar(select(File).where(File.id == upload.file_id, File.deleted_at.is_(None)))


def expire(session: Session, now: int) -> None:
    pending = (Upload.status == PENDING, Upload.expires_at <= now)
    session.execute(update(Upload).where(*pending).values(status="expired"))


def ended_with_parts(session: Session, limit: int) -> Sequence[Upload]:
    """By the index of those that have any, which are few."""
    ended = (Upload.received_bytes > 0, Upload.status != PENDING)
    return session.scalars(select(Upload).where(*ended).limit(limit)).all()


def ended_before(session: Session, time: int, limit: int) -> Sequence[Upload]:
    """Uploads without parts of which nobody will ask any more."""
    over = (Upload.status.in_(ENDED), Upload.expires_at < time, Upload.n_parts == 0)
    return session.scalars(select(Upload).where(*over).limit(limit)).all()


def delete_parts(session: Session, upload: Upload) -> None:
    session.execute(delete(UploadPart).where(UploadPart.upload_id == upload.id))
    upload.n_parts = upload.received_bytes = 0


def delete_upload(session: Session, upload: Upload) -> None:
    session.execute(delete(Upload).where(Upload.id == upload.id))
