"""What can be done with files. Each function that must outlive a failure of the next runs its own transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from gateway.dependencies import Services, has_room
from gateway.errors import InsufficientStorage, TooManyRequests, Unavailable
from gateway.files import repository
from gateway.files.upload import PURPOSE, Upload
from gateway.kit.ids import new_id
from gateway.tables.files import File
from gateway.tenants.quotas import count_stored, require_storage_quota
from policies.contract.artifacts import CHUNK_BYTES, Digest
from policies.contract.store import ArtifactStore

ORPHANS_KEPT_SECONDS = 86400.0
"""An upload that is on its way has no file object yet; none takes so long."""


def require_room(services: Services, tenant_id: str, *, n_bytes: int) -> None:
    """Before an upload is read: whether the store, and the tenant's share of it, have room for so many bytes.

    Raises:
        InsufficientStorage: the store has less room than the operator wants it to have.
        TooManyRequests: the tenant has stored as much as it may.
    """
    require_free_storage(services)
    with services.database.transaction() as session:
        require_storage_quota(session, services, tenant_id, more_bytes=n_bytes)


def require_free_storage(services: Services) -> None:
    """Raises `InsufficientStorage` where the store has less room than the operator wants it to have."""
    if not has_room(services):
        raise InsufficientStorage("The service's storage is nearly full; try again later.")


def add_file(services: Services, tenant_id: str, upload: Upload) -> File:
    """The row of an upload whose bytes are in the store."""
    file = file_row(tenant_id, upload, now=services.now())
    try:
        with services.database.transaction() as session:
            require_storage_quota(session, services, tenant_id, more_bytes=file.size_bytes)
            insert_file(session, services, file)
    except TooManyRequests:
        drop_unneeded_bytes(services, file.digest)
        raise
    return file


def file_row(tenant_id: str, upload: Upload, *, now: int) -> File:
    expires_after = upload.expires_after_seconds
    return File(
        id=new_id("file-"),
        tenant_id=tenant_id,
        filename=upload.filename,
        purpose=PURPOSE,
        size_bytes=upload.size_bytes,
        digest=upload.digest,
        status="processed",
        created_at=now,
        expires_at=None if expires_after is None else now + expires_after,
    )


def insert_file(session: Session, services: Services, file: File) -> None:
    """Raises `Unavailable` where the bytes were deleted with the last file of the same ones, just now."""
    repository.lock_digest(session, file.digest)
    session.add(file)
    session.flush()
    count_stored(session, file.tenant_id, file.size_bytes)
    if not services.stores.files.exists(file.digest):
        raise Unavailable("The upload was lost to a deletion of the same content; send it again.")


def delete_file(services: Services, tenant_id: str, file_id: str) -> None:
    """Make the file unreadable; then, once that is committed, drop bytes that nothing needs."""
    with services.database.transaction() as session:
        file = repository.tenants_file(session, tenant_id, file_id=file_id, now=services.now())
        _delete(session, File.id == file.id, services.now())
    drop_unneeded_bytes(services, file.digest)


def delete_expired_files(services: Services) -> int:
    """How many files had expired and are now deleted; for a periodic task."""
    with services.database.transaction() as session:
        files = _delete(session, File.expires_at <= services.now(), services.now())
    for digest in {file.digest for file in files}:
        drop_unneeded_bytes(services, digest)
    return len(files)


def _delete(session: Session, which: ColumnElement[bool], now: int) -> list[repository.DeletedFile]:
    """Tenants' rows are changed in one order, so that two transactions don't wait for each other."""
    deleted = repository.delete(session, which, now)
    for tenant_id in sorted({file.tenant_id for file in deleted}):
        count_stored(session, tenant_id, -sum(file.size_bytes for file in deleted if file.tenant_id == tenant_id))
    return deleted


def delete_orphaned_bytes(services: Services) -> int:
    """Delete bytes that no file names, which uploads that died left behind; for a periodic task. Gives how many."""
    before = services.clock() - ORPHANS_KEPT_SECONDS
    store = services.stores.files
    n_unfinished = store.delete_unfinished(before)
    old = [artifact.digest for artifact in store.stored() if artifact.written_at < before]
    return n_unfinished + sum(drop_unneeded_bytes(services, digest) for digest in old)


def drop_unneeded_bytes(services: Services, digest: Digest) -> bool:
    """Whether nothing needed them."""
    with services.database.transaction() as session:
        repository.lock_digest(session, digest)
        is_needed = repository.is_needed(session, digest, services.now())
        if not is_needed:
            services.stores.files.delete(digest)
    return not is_needed


def stream_bytes(store: ArtifactStore, digest: Digest) -> Iterator[bytes]:
    """The bytes in pieces. Opened at once, so that a missing artifact is an error and not a cut response."""
    with ExitStack() as opening:
        stream = opening.enter_context(store.open(digest))
        first = stream.read(CHUNK_BYTES)
        opened = opening.pop_all()

    def pieces() -> Iterator[bytes]:
        with opened:
            yield first
            while piece := stream.read(CHUNK_BYTES):
                yield piece

    return pieces()
