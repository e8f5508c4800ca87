"""Ended uploads leave nothing, whoever dies in between, and nothing half-written ever counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from openai import BadRequestError, OpenAI
from sqlalchemy import Engine, event, select
from structlog.typing import EventDict

from gateway.dependencies import Services
from gateway.files.service import ORPHANS_KEPT_SECONDS, delete_orphaned_bytes
from gateway.tables.tenancy import Tenant
from gateway.tables.uploads import Upload, UploadPart
from gateway.uploads import service
from gateway.uploads.completion import complete_upload
from gateway.uploads.parts import ReceivedPart
from gateway.uploads.schemas import CompleteUploadRequest
from gateway.uploads.sweep import CLAIM_SECONDS, KEPT_SECONDS, ROUND_SECONDS, sweep_uploads
from policies.contract.store import ArtifactStore, ArtifactStores
from tests.gateway.conftest import LiveGateway
from tests.gateway.uploads.conftest import begin, files, in_store, send, stored_bytes


class DiesError(BaseException):
    """What no handler of an error sees, as the end of the process is."""


@contextmanager
def dying(statement: str) -> Iterator[None]:
    """The process ends when it sends such a statement."""

    def die(_connection: object, _cursor: object, sent: str, *_: object) -> None:
        if sent.startswith(statement):
            raise DiesError(statement)

    event.listen(Engine, "before_cursor_execute", die)
    try:
        with pytest.raises(DiesError):
            yield
    finally:
        event.remove(Engine, "before_cursor_execute", die)


def tenant_of(services: Services) -> str:
    with services.database.reading() as session:
        return session.scalars(select(Tenant.id)).one()


def rows(services: Services) -> tuple[int, int]:
    """How many uploads and parts there are."""
    with services.database.reading() as session:
        return len(session.scalars(select(Upload)).all()), len(session.scalars(select(UploadPart)).all())


def test_an_ended_upload_loses_its_parts_at_once_and_its_row_a_day_later(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    services = live_gateway.services
    cancelled, pending = begin(client), begin(client)
    send(client, cancelled)
    send(client, pending)
    client.uploads.cancel(cancelled)
    assert [sweep_uploads(services) for _ in range(2)] == [1, 0]
    assert rows(services) == (2, 3)
    assert len(in_store(live_gateway)) == 3
    live_gateway.clock.advance(3600)
    assert [sweep_uploads(services) for _ in range(2)] == [1, 0]
    assert rows(services) == (2, 0)
    live_gateway.clock.advance(KEPT_SECONDS + 1)
    sweep_uploads(services)
    assert rows(services) == (0, 0)
    with pytest.raises(Exception, match="No such Upload"):
        client.uploads.cancel(cancelled)
    assert (in_store(live_gateway), stored_bytes(live_gateway)) == ([], 0)


def test_bytes_of_a_part_whose_gateway_died_do_not_count_and_go_with_the_upload(
    live_gateway: LiveGateway, client: OpenAI, content: bytes
) -> None:
    """One died while it wrote the part, one before it wrote the row; both parts are sent again."""
    upload_id, services = begin(client), live_gateway.services
    store = services.stores.of_upload(upload_id)
    half = os.path.join(store.url.removeprefix("file://"), "incoming", "half")
    digest = store.put_bytes(content)
    with open(half, "wb") as stream:
        stream.write(content[:100])
    with dying("INSERT INTO upload_parts"):
        service.add_part(services, tenant_of(services), upload_id, ReceivedPart(digest, len(content)))
    assert (rows(services), stored_bytes(live_gateway)) == ((1, 0), 0)
    client.uploads.complete(upload_id, part_ids=send(client, upload_id))
    sweep_uploads(services)
    assert in_store(live_gateway, f"files/uploads/{upload_id}") == []
    assert stored_bytes(live_gateway) == len(content)


def test_what_came_while_an_upload_ended_goes_with_its_row(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id, services = begin(client), live_gateway.services
    service.require_part_wanted(services, tenant_of(services), upload_id, n_bytes=4)
    client.uploads.cancel(upload_id)
    services.stores.of_upload(upload_id).put_bytes(b"late")
    live_gateway.clock.advance(KEPT_SECONDS + 3601)
    sweep_uploads(services)
    assert (rows(services), in_store(live_gateway)) == ((0, 0), [])


def test_a_completion_whose_gateway_died_leaves_the_upload_open_and_no_file(
    live_gateway: LiveGateway, client: OpenAI, content: bytes
) -> None:
    upload_id, services = begin(client), live_gateway.services
    ids = send(client, upload_id)
    with dying("UPDATE uploads SET status"):
        complete_upload(services, tenant_of(services), upload_id, CompleteUploadRequest(part_ids=ids))
    assert (files(live_gateway), stored_bytes(live_gateway)) == ([], len(content))
    for path in in_store(live_gateway, "files/sha256"):
        os.utime(path, (1.0, live_gateway.clock() - ORPHANS_KEPT_SECONDS - 1))
    assert delete_orphaned_bytes(services) == 1
    assert client.uploads.complete(upload_id, part_ids=ids).status == "completed"
    sweep_uploads(services)
    assert stored_bytes(live_gateway) == len(content)


def test_a_sweep_that_died_is_finished_by_the_next(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id, services = begin(client), live_gateway.services
    send(client, upload_id)
    client.uploads.cancel(upload_id)
    with dying("DELETE FROM upload_parts"):
        sweep_uploads(services)
    assert stored_bytes(live_gateway) > 0
    assert sweep_uploads(services) == 0
    live_gateway.clock.advance(CLAIM_SECONDS)
    assert sweep_uploads(services) == 1
    assert (rows(services), stored_bytes(live_gateway)) == ((1, 0), 0)


@dataclass
class Watched(ArtifactStores):
    """Notes whose bytes are deleted, and calls `then` before it."""

    url: str
    then: Callable[[str], None] = lambda _: None
    deleted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.url)

    def of_upload(self, name: str) -> ArtifactStore:
        self.then(name)
        self.deleted.append(name)
        return super().of_upload(name)


def cancelled(client: OpenAI, count: int) -> list[str]:
    """Uploads with parts that have ended."""
    ids = [begin(client) for _ in range(count)]
    for upload_id in ids:
        send(client, upload_id)
        client.uploads.cancel(upload_id)
    return ids


def test_sweeps_at_once_take_each_upload_once(live_gateway: LiveGateway, client: OpenAI) -> None:
    ids, services = cancelled(client, 4), live_gateway.services
    watched = Watched(services.settings.store_url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sweep_uploads(replace(services, stores=watched)), range(4)))
    assert sorted(watched.deleted) == sorted(ids)
    assert (rows(services), stored_bytes(live_gateway)) == ((4, 0), 0)


def test_a_round_whose_time_is_over_leaves_the_rest_to_the_next(live_gateway: LiveGateway, client: OpenAI) -> None:
    ids, services = cancelled(client, 3), live_gateway.services
    slow = Watched(services.settings.store_url, lambda _: live_gateway.clock.advance(ROUND_SECONDS / 2))
    slowly = replace(services, stores=slow)
    assert [sweep_uploads(slowly) for _ in range(3)] == [2, 1, 0]
    assert sorted(slow.deleted) == sorted(ids)


def test_an_upload_that_never_had_a_part_costs_the_store_nothing(live_gateway: LiveGateway, client: OpenAI) -> None:
    services = live_gateway.services
    client.uploads.cancel(begin(client))
    begin(client)
    watched = Watched(services.settings.store_url)
    for seconds in (0, 3600, KEPT_SECONDS + 1):
        live_gateway.clock.advance(seconds)
        sweep_uploads(replace(services, stores=watched))
    assert (rows(services), watched.deleted) == ((0, 0), [])


def test_an_upload_that_ends_while_it_is_completed_is_told_so(
    live_gateway: LiveGateway, client: OpenAI, content: bytes
) -> None:
    """It is cancelled, and swept, after the completion has looked at it."""
    upload_id, services = begin(client), live_gateway.services
    ids = send(client, upload_id)

    class Ends(ArtifactStores):
        """Ends the upload when its parts are first opened."""

        def of_upload(self, name: str) -> ArtifactStore:
            client.uploads.cancel(name)
            sweep_uploads(services)
            return super().of_upload(name)

    ending = replace(services, stores=Ends(services.settings.store_url))
    with pytest.raises(Exception, match="is cancelled"):
        complete_upload(ending, tenant_of(services), upload_id, CompleteUploadRequest(part_ids=ids))
    assert (files(live_gateway), in_store(live_gateway), stored_bytes(live_gateway)) == ([], [], 0)


def test_lost_bytes_are_told_and_can_be_sent_again(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    in_store(live_gateway)[0].write_bytes(b"other bytes")
    with pytest.raises(BadRequestError) as error:
        client.uploads.complete(upload_id, part_ids=ids)
    assert error.value.code == "part_lost"
    assert files(live_gateway) == []


def test_an_upload_that_can_not_be_swept_holds_up_no_other(
    live_gateway: LiveGateway, client: OpenAI, quiet_log: list[EventDict]
) -> None:
    services, stuck = live_gateway.services, begin(client)

    class Stuck(ArtifactStore):
        """Storage that does not answer."""

        def delete_all(self) -> None:
            raise OSError("no answer")

    class Stores(ArtifactStores):
        def of_upload(self, name: str) -> ArtifactStore:
            store = super().of_upload(name)
            return Stuck(store.url) if name == stuck else store

    for upload_id in (stuck, begin(client)):
        send(client, upload_id)
        client.uploads.cancel(upload_id)
    assert sweep_uploads(replace(services, stores=Stores(services.settings.store_url))) == 1
    assert [entry["upload_id"] for entry in quiet_log if entry["event"] == "upload_not_swept"] == [stuck]
    live_gateway.clock.advance(CLAIM_SECONDS)
    assert sweep_uploads(services) == 1
    assert (rows(services), stored_bytes(live_gateway)) == ((2, 0), 0)
