"""Beginning an upload in parts, adding parts, cancelling. What ends an upload leaves its parts to `sweep`.

Whatever changes an upload or its parts locks the tenant first, so it sees what is committed, and nothing changes
meanwhile. Parts count for what the tenant has stored until their bytes are gone.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.errors import ApiError, InvalidRequest, PayloadTooLarge, Unavailable
from gateway.files.service import require_free_storage, require_room
from gateway.files.upload import file_name, require_purpose
from gateway.kit.ids import new_id
from gateway.tables.uploads import PENDING, Upload, UploadPart
from gateway.tenants.quotas import count_stored, let_others_wait, require_storage_quota, require_upload_quota
from gateway.uploads.parts import ReceivedPart
from gateway.uploads.repository import has_part_of, require_pending, tenants_upload
from gateway.uploads.schemas import MAX_PARTS, CreateUploadRequest

LIFE_SECONDS = 3600
MIME_TYPES = frozenset(
    {
        *("application/jsonl", "application/json-lines", "application/jsonlines", "application/x-jsonlines"),
        *("application/json", "application/x-json", "application/ndjson", "application/x-ndjson"),
        *("text/jsonl", "text/x-jsonl", "text/json", "text/plain", "application/octet-stream", "jsonl", "json"),
    }
)
"""What clients call JSONL, which has no registered type."""
MOST_TIMES = 2
"""Parts together may be as large as the file twice: a client that got no answer sends a part again."""


def create_upload(session: Session, services: Services, tenant_id: str, request: CreateUploadRequest) -> Upload:
    """An upload that lies open for an hour.

    Raises:
        InvalidRequest: purpose, type or name is not what a training file has.
        PayloadTooLarge: the file would be larger than files may be.
        TooManyRequests: it would be more than the tenant may store, or one upload too many.
        InsufficientStorage: the store has less room than the operator wants it to have.
    """
    require_purpose(request.purpose)
    _require_mime_type(request.mime_type)
    filename = file_name(request.filename, "filename")
    if request.bytes > services.settings.max_upload_bytes:
        message = f"bytes: a file has at most {services.settings.max_upload_bytes} bytes here; split it."
        raise PayloadTooLarge(message, "bytes")
    require_free_storage(services)
    require_storage_quota(session, services, tenant_id, more_bytes=request.bytes)
    require_upload_quota(session, services, tenant_id)
    now = services.now()
    upload = Upload(
        id=new_id("upload_"),
        tenant_id=tenant_id,
        filename=filename,
        purpose=request.purpose,
        size_bytes=request.bytes,
        status=PENDING,
        created_at=now,
        expires_at=now + LIFE_SECONDS,
        file_expires_after=request.expires_after and request.expires_after.seconds,
        n_parts=0,
        received_bytes=0,
    )
    session.add(upload)
    session.flush()
    return upload


def require_part_wanted(services: Services, tenant_id: str, upload_id: str, *, n_bytes: int) -> None:
    """Before a part is read, which has so many bytes at least."""
    with services.database.reading() as session:
        upload = tenants_upload(session, tenant_id, upload_id)
        _require_part_fits(upload, n_bytes, services.now())
    require_room(services, tenant_id, n_bytes=n_bytes)
    if not upload.may_have_bytes:
        with services.database.transaction() as session:
            let_others_wait(session, tenant_id)
            tenants_upload(session, tenant_id, upload_id).may_have_bytes = True


def add_part(services: Services, tenant_id: str, upload_id: str, received: ReceivedPart) -> UploadPart:
    """The row of a part whose bytes are in the upload's store; where it is refused, they go again."""
    store, now = services.stores.of_upload(upload_id), services.now()
    part = UploadPart(id=new_id("part_"), upload_id=upload_id, created_at=now, **received._asdict())
    try:
        with services.database.transaction() as session:
            require_storage_quota(session, services, tenant_id, more_bytes=part.size_bytes)
            upload = tenants_upload(session, tenant_id, upload_id)
            _require_part_fits(upload, part.size_bytes, now)
            session.add(part)
            upload.n_parts += 1
            upload.received_bytes += part.size_bytes
            session.flush()
            count_stored(session, tenant_id, part.size_bytes)
            if not store.exists(part.digest):  # deleted with a part of the same bytes that was refused, just now
                raise Unavailable("The part was lost to a deletion of the same content; send it again.")
    except ApiError:
        with services.database.transaction() as session:
            let_others_wait(session, tenant_id)
            if not has_part_of(session, upload_id, part.digest):
                store.delete(part.digest)
        raise
    return part


def cancel_upload(session: Session, services: Services, tenant_id: str, upload_id: str) -> Upload:
    """Also where it is cancelled already; raises `InvalidRequest` where it ended otherwise."""
    let_others_wait(session, tenant_id)
    upload = tenants_upload(session, tenant_id, upload_id)
    if upload.status != "cancelled":
        require_pending(upload, services.now())
        upload.status = "cancelled"
    return upload


def _require_mime_type(mime_type: str) -> None:
    if mime_type.partition(";")[0].strip().lower() not in MIME_TYPES:
        message = f"mime_type: {mime_type[:64]!r} is no type of JSONL; send 'application/jsonl'."
        raise InvalidRequest(message, "mime_type", "unsupported_mime_type")


def _require_part_fits(upload: Upload, n_bytes: int, now: int) -> None:
    require_pending(upload, now)
    if upload.n_parts >= MAX_PARTS:
        message = f"Upload {upload.id} has {MAX_PARTS} parts, as many as it may; send larger ones."
        raise InvalidRequest(message, "data", "too_many_parts")
    total = upload.received_bytes + n_bytes
    if total > MOST_TIMES * upload.size_bytes:
        message = (
            f"Upload {upload.id} would have {total} bytes in parts, more than twice the {upload.size_bytes} that it "
            "was announced with; complete it, or cancel it and begin another one."
        )
        raise InvalidRequest(message, "data", "upload_size_exceeded")
