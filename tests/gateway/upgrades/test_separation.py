"""Files from before the stores were separated move into theirs, and take nothing along that anybody else names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.typing import EventDict

from gateway.app import build_services
from gateway.dependencies import Services
from gateway.files.separation import DIGEST_LENGTH, Separated, separate_files, unseparated
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job, JobCheckpoint
from gateway.tenants.keys import create_key, find_tenant
from policies.contract.artifacts import CHUNK_BYTES, Digest, TreeManifest, digest_bytes
from policies.contract.store import ArtifactStore
from tests.gateway.conftest import run_gateway
from tests.gateway.upgrades.conftest import Tunegate
from tests.gateway.upgrades.earlier_versions import Earlier, earlier, put_back

FILES = 4
"""Contents of file objects that 0005 left in the one store: the training rows, the broken file, `kept`, and the log
that all trainings had in common; the bytes of `gone` went with it."""
FREE_FILE = digest_bytes(b'{"kept": 1}\n')


class Old(NamedTuple):
    """What 0005 left, its database migrated by now."""

    earlier: Earlier
    services: Services
    own: ArtifactStore
    """The files' store, without what it falls back on."""

    def found(self) -> list[Digest]:
        with self.services.database.engine.connect() as connection:
            return unseparated(connection, self.services.stores)

    def separate(self) -> Separated:
        return separate_files(self.services, self.found())


@pytest.fixture
def old(settings: GatewaySettings, store: Path) -> Iterator[Old]:
    found = earlier("0005")
    put_back(found, url=settings.database_url, store=store)
    upgrade(settings.database_url)
    services = build_services(settings)
    yield Old(found, services, ArtifactStore(services.stores.files.url))
    services.database.close()


def new_key(services: Services) -> str:
    with services.database.transaction() as session:
        tenant = find_tenant(session, "acme")
        assert tenant is not None
        return create_key(session, tenant, now=1).secret


def test_an_upgrade_moves_them_and_from_then_on_they_are_deleted_with_their_file_object(
    settings: GatewaySettings, store: Path, tunegate: Tunegate, tmp_path: Path
) -> None:
    found = earlier("0005")
    put_back(found, url=settings.database_url, store=store)
    assert f"to be moved: {FILES}" in tunegate("upgrade", "--check")
    said = tunegate("upgrade", "--backup", str(tmp_path / "backup"))
    assert f"{FILES} files were copied into their store; of the old bytes {FILES} are deleted, and 0 kept." in said
    assert "there is nothing to do" in tunegate("upgrade")
    with run_gateway(settings) as gateway:
        client = gateway.client(new_key(gateway.services))
        stores = gateway.services.stores
        contents = {file.id: client.files.content(file.id).read() for file in client.files.list(limit=100)}
        assert len(set(contents.values())) == FILES
        assert not any(stores.shared.exists(digest_bytes(content)) for content in contents.values())
        client.files.delete(found.files["kept"])
        assert not stores.files.exists(FREE_FILE)


def test_nothing_is_moved_where_the_way_back_would_miss_it(
    settings: GatewaySettings, store: Path, tunegate: Tunegate, tmp_path: Path
) -> None:
    put_back(earlier("0005"), url=settings.database_url, store=store)
    assert "No file was moved" in tunegate("upgrade", "--backup", str(tmp_path / "backup"), "--rows-only")
    assert f"to be moved: {FILES}" in tunegate("upgrade", "--check")


def test_a_second_time_finds_nothing(old: Old) -> None:
    assert old.separate() == Separated(FILES, FILES, 0)
    assert old.found() == []
    assert old.separate() == Separated(0, 0, 0)


def test_what_was_copied_before_a_crash_is_not_copied_again(old: Old) -> None:
    old.own.put_bytes(b'{"kept": 1}\n')
    assert old.separate() == Separated(FILES - 1, FILES, 0)


def test_bytes_of_deleted_files_go_without_a_copy(old: Old) -> None:
    gone = old.services.stores.shared.put_bytes(b'{"gone": 1}\n')
    assert gone in old.found()
    assert old.separate() == Separated(FILES, FILES + 1, 0)
    assert not old.own.exists(gone)


def named_by_a_row_of_a_job(old: Old) -> None:
    with old.services.database.transaction() as session:
        session.get_one(Job, old.earlier.jobs["queued"]).adapter_digest = FREE_FILE


def named_by_a_job_that_uses_it_as_a_pool(old: Old) -> None:
    with old.services.database.transaction() as session:
        job = session.get_one(Job, old.earlier.jobs["queued"])
        job.spec = job.spec | {"defenses": [{"name": "kl_penalty", "pool": FREE_FILE}]}


def named_by_a_checkpoint(old: Old) -> None:
    with old.services.database.transaction() as session:
        row = session.query(JobCheckpoint).first()
        assert row is not None
        row.record = row.record | {"state": FREE_FILE}


def named_by_a_folder(old: Old) -> None:
    old.services.stores.shared.put_record(TreeManifest(files={"weights": FREE_FILE}))


def named_by_the_spec_of_a_policy_of_before(old: Old) -> None:
    old.services.stores.shared.put_bytes(b'{"kind":"ReleasePolicy","spec":{"pool":"' + FREE_FILE.encode() + b'"}}')


def named_across_two_pieces(old: Old) -> None:
    start = CHUNK_BYTES - DIGEST_LENGTH // 2
    old.services.stores.shared.put_bytes(b" " * start + FREE_FILE.encode() + b" " * CHUNK_BYTES)


def named_by_a_policy_in_force(old: Old) -> None:
    policy = old.services.policies.release_policies["baseline"]
    metadata = policy.metadata.model_copy(update={"description": f"its pool is {FREE_FILE}"})
    old.services.policies.release_policies["baseline"] = policy.model_copy(update={"metadata": metadata})


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)  # what is looked at is no database's own
@pytest.mark.parametrize(
    "name",
    [
        named_by_a_row_of_a_job,
        named_by_a_job_that_uses_it_as_a_pool,
        named_by_a_checkpoint,
        named_by_a_folder,
        named_by_the_spec_of_a_policy_of_before,
        named_across_two_pieces,
        named_by_a_policy_in_force,
    ],
)
def test_what_something_else_names_is_copied_and_stays(old: Old, name: Callable[[Old], None]) -> None:
    name(old)
    assert old.separate() == Separated(FILES, FILES - 1, 1)
    assert old.services.stores.shared.read_bytes(FREE_FILE) == old.own.read_bytes(FREE_FILE)


def test_nothing_is_deleted_where_not_everything_can_be_read(old: Old, store: Path, quiet_log: list[EventDict]) -> None:
    digest = old.services.stores.shared.put_bytes(b"a record that names who knows what")
    name = digest.removeprefix("sha256:")
    (store / "sha256" / name[:2] / name).write_bytes(b"damaged")
    before = old.found()
    assert old.separate() == Separated(FILES, 0, FILES)
    assert old.found() == before
    assert [entry["event"] for entry in quiet_log if entry["log_level"] == "error"] == ["old_files_kept"]


def test_a_file_whose_bytes_are_damaged_is_not_copied_and_stays(old: Old, store: Path) -> None:
    name = FREE_FILE.removeprefix("sha256:")
    (store / "sha256" / name[:2] / name).write_bytes(b"damaged")
    before = old.found()
    with pytest.raises(ValueError, match="does not have the bytes"):
        old.separate()
    assert old.found() == before
    assert not old.own.exists(FREE_FILE)
