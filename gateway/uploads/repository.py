"""Queries on uploads in parts. Another tenant's is not found."""

from __future__ import annotations

from sqlalchemy import Select, delete, exists, select, update
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


def claim(session: Session, found: Select[Upload], now: float, *, seconds: float) -> Upload | None:
    """One of them that no other sweep looks at, put off for so long."""
    due = found.where(Upload.sweep_at <= now).limit(1)
    upload = session.scalar(due.with_for_update(skip_locked=True))
    if upload is not None:
        upload.sweep_at = now + seconds
    return upload


def ended_with_parts() -> Select[Upload]:
    """By the index of those that have any, which are few."""
    return select(Upload).where(Upload.received_bytes > 0, Upload.status != PENDING)


def over_with_bytes(time: int) -> Select[Upload]:
    """Of whose parts none is left, but perhaps bytes, and nobody will ask any more."""
    over = (Upload.status.in_(ENDED), Upload.expires_at < time, Upload.n_parts == 0)
    return select(Upload).where(*over, Upload.may_have_bytes)


def delete_empty(session: Session, time: int) -> None:
    """Uploads that never had a part and that nobody will ask for any more."""
    empty = (Upload.status.in_(ENDED), Upload.expires_at < time, Upload.may_have_bytes.is_(False))
    session.execute(delete(Upload).where(*empty))


def delete_parts(session: Session, upload: Upload) -> None:
    session.execute(delete(UploadPart).where(UploadPart.upload_id == upload.id))
    upload.n_parts = upload.received_bytes = 0


def delete_upload(session: Session, upload: Upload) -> None:
    session.execute(delete(Upload).where(Upload.id == upload.id))
