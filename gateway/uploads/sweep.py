"""Parts of uploads that have ended go, then their share of what the tenant has stored; a day later the row goes too."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from sqlalchemy import Select

from gateway.dependencies import Services
from gateway.tables.uploads import Upload
from gateway.tenants.quotas import count_stored, let_others_wait
from gateway.uploads import repository
from policies.contract.storage import outages

log = structlog.get_logger(__name__)

KEPT_SECONDS = 86400
"""How long an ended upload can be asked for, and by when nobody writes a part of it any more."""
ROUND_SECONDS = 20.0
"""After which a round begins no other upload. The next one, 10 seconds later, goes on."""
CLAIM_SECONDS = 300.0
"""How long an upload is one round's alone, and when one that could not be swept is tried again."""


def sweep_uploads(services: Services) -> int:
    """For a periodic task; gives how many uploads lost their parts. It may run twice at once, and be cut off anywhere.

    Of an upload that nobody asks for any more, all that lies in its store is deleted once more: a part that came while
    the upload ended may have been left behind by a process that died.
    """
    until, over = services.clock() + ROUND_SECONDS, services.now() - KEPT_SECONDS
    with services.database.transaction() as session:
        repository.expire(session, services.now())
        repository.delete_empty(session, over)
    n_swept = sum(_sweep(services, upload) for upload in _claimed(services, repository.ended_with_parts(), until))
    for upload in _claimed(services, repository.over_with_bytes(over), until):
        if _delete_bytes(services, upload):
            with services.database.transaction() as session:
                repository.delete_upload(session, upload)
    return n_swept


def _claimed(services: Services, found: Select[Upload], until: float) -> Iterator[Upload]:
    while (now := services.clock()) < until:
        with services.database.transaction() as session:
            upload = repository.claim(session, found, now, seconds=CLAIM_SECONDS)
        if upload is None:
            return
        yield upload


def _sweep(services: Services, upload: Upload) -> bool:
    if not _delete_bytes(services, upload):
        return False
    with services.database.transaction() as session:
        let_others_wait(session, upload.tenant_id)
        row = session.get_one(Upload, upload.id)
        count_stored(session, row.tenant_id, -row.received_bytes)
        repository.delete_parts(session, row)
    return True


def _delete_bytes(services: Services, upload: Upload) -> bool:
    """Whether it went well; one upload whose bytes can't be deleted holds up no other."""
    try:
        services.stores.of_upload(upload.id).delete_all()
    except outages(services.settings.store_url) as error:
        log.error("upload_not_swept", upload_id=upload.id, error=str(error))
        return False
    return True
