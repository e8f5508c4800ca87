"""Parts become a file: read in their order, checked and hashed on the way, in bounded memory.

Two completions of one upload at once each write the same bytes; the first to commit makes the file, and the other
answers what it made. A process that dies leaves the upload as it was.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.errors import ApiError, InvalidRequest
from gateway.files.dataset.first_line import FirstLine
from gateway.files.service import drop_unneeded_bytes, file_row, insert_file, require_free_storage
from gateway.files.upload import Upload as WholeFile
from gateway.tables.files import File
from gateway.tables.uploads import Upload, UploadPart
from gateway.tenants.quotas import let_others_wait
from gateway.uploads.repository import file_of, parts_of, require_pending, tenants_upload
from gateway.uploads.schemas import CompleteUploadRequest
from policies.contract.artifacts import CHUNK_BYTES, Digest
from policies.errors import ArtifactMissingError, IntegrityError

MAX_FAILED = 3
"""Completions of an upload whose MD5 is wrong: each reads and writes the whole file."""


class Md5Mismatch(InvalidRequest):
    """The parts are not the file that the tenant has."""


class Completed(NamedTuple):
    """An upload and its file, which its tenant may have deleted since."""

    upload: Upload
    file: File | None


class _Pending(NamedTuple):
    upload: Upload
    parts: list[Digest]


def complete_upload(services: Services, tenant_id: str, upload_id: str, request: CompleteUploadRequest) -> Completed:
    """The upload with its file; again where the same request has completed it before.

    Raises:
        InvalidRequest: the parts are not those of the upload or not the file that was announced, or it has ended;
            it ends with the third MD5 that is wrong.
        InsufficientStorage: the store has less room than the operator wants it to have.
    """
    found = _look_up(services, tenant_id, upload_id, request)
    if isinstance(found, Completed):
        return found
    require_free_storage(services)
    try:
        whole = _assemble(services, found, md5=request.md5)
    except Md5Mismatch as error:
        raise _count_failure(services, tenant_id, upload_id, error) from None
    except (ArtifactMissingError, IntegrityError) as error:
        again = _look_up(services, tenant_id, upload_id, request)  # the parts of an upload that has ended are swept
        if isinstance(again, Completed):
            return again
        message = f"The service has lost bytes of upload {upload_id}; cancel it and send the file again."
        raise InvalidRequest(message, "upload_id", "part_lost") from error
    try:
        return _conclude(services, tenant_id, upload_id, request=request, whole=whole)
    except ApiError:
        drop_unneeded_bytes(services, whole.digest)
        raise


def _count_failure(services: Services, tenant_id: str, upload_id: str, error: Md5Mismatch) -> Md5Mismatch:
    """The error, with what becomes of the upload."""
    with services.database.transaction() as session:
        let_others_wait(session, tenant_id)
        upload = tenants_upload(session, tenant_id, upload_id)
        require_pending(upload, services.now())
        upload.n_failed += 1
        left = MAX_FAILED - upload.n_failed
        if left <= 0:
            upload.status = "cancelled"
    ends = f"After {left} more of these the upload is cancelled." if left > 0 else "It is cancelled now: begin another."
    return Md5Mismatch(f"{error} {ends}", error.param, error.code)


def _look_up(
    services: Services, tenant_id: str, upload_id: str, request: CompleteUploadRequest
) -> Completed | _Pending:
    with services.database.reading() as session:
        parts = parts_of(session, upload_id)  # first: where the upload is pending afterwards, none was swept before
        upload = tenants_upload(session, tenant_id, upload_id)
        if (completed := _repeated(session, upload, request)) is not None:
            return completed
        require_pending(upload, services.now())
        return _Pending(upload, _in_order(upload, parts, request.part_ids))


def _repeated(session: Session, upload: Upload, request: CompleteUploadRequest) -> Completed | None:
    is_same = upload.status == "completed" and upload.completion_digest == request.digest
    return Completed(upload, file_of(session, upload)) if is_same else None


def _in_order(upload: Upload, parts: dict[str, UploadPart], part_ids: Sequence[str]) -> list[Digest]:
    """Digests of the parts that make the file."""
    twice, count = Counter(part_ids).most_common(1)[0]
    if count > 1:
        raise InvalidRequest(f"part_ids: {twice!r} is there {count} times.", "part_ids", "duplicate_part")
    for number, part_id in enumerate(part_ids):
        if part_id not in parts:
            message = f"part_ids[{number}]: upload {upload.id} has no part {part_id!r}."
            raise InvalidRequest(message, f"part_ids[{number}]", "unknown_part")
    total = sum(parts[part_id].size_bytes for part_id in part_ids)
    if total != upload.size_bytes:
        message = (
            f"part_ids: the parts have {total} bytes together, and the upload was announced with {upload.size_bytes}; "
            "name all parts, or begin another upload with the right number."
        )
        raise InvalidRequest(message, "part_ids", "upload_size_mismatch")
    return [parts[part_id].digest for part_id in part_ids]


def _assemble(services: Services, pending: _Pending, *, md5: str | None) -> WholeFile:
    """The bytes of all parts, written as one file. Nothing of it is kept where this raises."""
    upload, store = pending.upload, services.stores.of_upload(pending.upload.id)
    first_line, found = FirstLine(upload.filename), hashlib.md5(usedforsecurity=False)
    with services.stores.files.writer() as writer:
        for digest in pending.parts:
            with store.open(digest) as stream:
                while piece := stream.read(CHUNK_BYTES):
                    first_line.add(piece)
                    writer.write(piece)
                    if md5 is not None:
                        found.update(piece)
        first_line.end()
        if md5 is not None and found.hexdigest() != md5.lower():
            message = f"md5: the parts together have {found.hexdigest()}, not {md5.lower()}; name them in order."
            raise Md5Mismatch(message, "md5", "md5_mismatch")
    return WholeFile(upload.filename, writer.digest, writer.size_bytes, upload.file_expires_after)


def _conclude(
    services: Services, tenant_id: str, upload_id: str, *, request: CompleteUploadRequest, whole: WholeFile
) -> Completed:
    """Make file and upload say so, unless the upload has ended meanwhile.

    One that expired while it was assembled is completed all the same, if it is not swept yet. No quota is asked for:
    the bytes count already, as parts, and do so twice until these are swept.
    """
    with services.database.transaction() as session:
        let_others_wait(session, tenant_id)
        upload = tenants_upload(session, tenant_id, upload_id)
        if (completed := _repeated(session, upload, request)) is not None:
            return completed
        require_pending(upload, min(services.now(), upload.expires_at - 1))
        file = file_row(tenant_id, whole, now=services.now())
        insert_file(session, services, file)
        upload.status, upload.file_id, upload.completion_digest = "completed", file.id, request.digest
    return Completed(upload, file)
