"""A backup is whole, and what it is restored into goes on where the other left off, on either database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from sqlalchemy import select
from typer.testing import CliRunner

from gateway.app import build_services
from gateway.cli.backup import CONTENTS_FILE, ROWS_FILE, STORE_FOLDER
from gateway.cli.commands import COMMANDS
from gateway.dependencies import Services
from gateway.jobs.event_records import move_events
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job, JobEvent
from gateway.tables.models import Model
from gateway.workers.reconciler import reconcile
from policies.cli.main import build_app
from policies.contract.artifacts import digest_tree
from policies.contract.store import ArtifactStores
from policies.contract.training import TrainingRecord
from policies.errors import ConfigurationError, IntegrityError
from tests.gateway.conftest import LiveGateway, gateway_settings, run_gateway
from tests.gateway.databases import Databases, PostgresDatabases, SqliteDatabases
from tests.gateway.hand_worker import HandWorker, evaluate, job_row, submit, submit_queued, train


def backup(settings: GatewaySettings, *arguments: str) -> str:
    environment = {"TUNEGATE_DATABASE_URL": settings.database_url, "TUNEGATE_STORE_URL": settings.store_url}
    result = CliRunner().invoke(
        build_app(COMMANDS), ["backup", *arguments], env=environment, catch_exceptions=False, standalone_mode=False
    )
    return result.stdout


@pytest.fixture
def worker(live_gateway: LiveGateway) -> Iterator[HandWorker]:
    worker = HandWorker(live_gateway)
    yield worker
    worker.close()


class Before:
    """One released job, one in training with a lease, one that waits for its files to be validated."""

    def __init__(self, gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> None:
        self.services, self.key = gateway.services, client.api_key
        self.released = submit_queued(gateway, client, metadata={"a": "b"})
        train(gateway, worker, self.released)
        evaluate(gateway, worker, self.released)
        self.running = submit_queued(gateway, client)
        worker.must_claim(self.running)
        self.waiting = submit(client).id


@pytest.fixture
def before(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> Before:
    return Before(live_gateway, client, worker)


@pytest.fixture
def saved(before: Before, tmp_path: Path) -> Path:
    backup(before.services.settings, "create", str(tmp_path / "backup"))
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(tmp_path: Path, databases: Databases) -> Iterator[GatewaySettings]:
    """An empty database of the same kind, and an empty store."""
    with databases.empty() as url:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        yield gateway_settings(folder, database_url=url)


def rows(services: Services) -> dict[str, list[tuple[object, ...]]]:
    with services.database.reading() as session:
        return {
            table.name: sorted(map(tuple, session.execute(select(table)).all()), key=str)
            for table in Job.metadata.sorted_tables
        }


def test_a_restored_gateway_has_every_row_and_goes_on(before: Before, saved: Path, elsewhere: GatewaySettings) -> None:
    assert "are sound" in backup(before.services.settings, "verify", str(saved))
    backup(elsewhere, "restore", str(saved))
    with run_gateway(elsewhere) as gateway:
        assert rows(gateway.services) == rows(before.services)
        client, worker = gateway.client(before.key), HandWorker(gateway)
        model = client.fine_tuning.jobs.retrieve(before.released).fine_tuned_model
        assert model in {each.id for each in client.models.list()}
        with gateway.services.database.reading() as session:
            row = session.scalars(select(Model)).one()
        store = gateway.services.stores.of_job(before.released)
        assert digest_tree(store.fetch_tree(row.adapter_digest, saved.parent / "adapter")) == row.adapter_digest
        record = job_row(gateway.services, before.released).training_record_digest
        assert record is not None
        assert store.get_record(record, TrainingRecord).adapter == row.adapter_digest
        gateway.clock.advance(1000)
        with gateway.services.database.transaction() as session:
            assert reconcile(session, gateway.services, gateway.clock()).expired == 1
        train(gateway, worker, before.running)
        evaluate(gateway, worker, before.running)
        assert job_row(gateway.services, before.running).phase == "released"
        worker.close()


def test_the_other_kind_of_database_takes_it_too(
    before: Before, saved: Path, tmp_path: Path, postgres: PostgresDatabases
) -> None:
    is_sqlite = before.services.database.engine.dialect.name == "sqlite"
    (tmp_path / "other").mkdir()
    other: Databases = postgres if is_sqlite else SqliteDatabases(tmp_path / "other")
    with other.empty() as url:
        settings = gateway_settings(tmp_path / "other", database_url=url)
        backup(settings, "restore", str(saved))
        services = build_services(settings)
        assert rows(services) == rows(before.services)
        services.database.close()


def test_new_rows_are_numbered_after_the_restored_ones(before: Before, saved: Path, elsewhere: GatewaySettings) -> None:
    backup(elsewhere, "restore", str(saved))
    services = build_services(elsewhere)
    with services.database.transaction() as session:
        last = max(session.scalars(select(JobEvent.sequence)))
        event = JobEvent(id="new", job_id=before.released, created_at=1, level="info", message="m", type="message")
        session.add(event)
        session.flush()
        assert event.sequence > last
    services.database.close()


def test_nothing_is_restored_over_what_is_there(before: Before, saved: Path) -> None:
    with pytest.raises(ConfigurationError, match="restore into an empty one"):
        backup(before.services.settings, "restore", str(saved))


def test_a_backup_that_lost_an_artifact_is_not_restored(saved: Path, elsewhere: GatewaySettings) -> None:
    max((saved / STORE_FOLDER).rglob("*"), key=lambda path: path.stat().st_size * path.is_file()).unlink()
    with pytest.raises(IntegrityError, match="1 artifacts are missing"):
        backup(elsewhere, "restore", str(saved))


def test_events_that_are_records_are_backed_up_and_shown_again(
    live_gateway: LiveGateway, client: OpenAI, tmp_path: Path, elsewhere: GatewaySettings
) -> None:
    job_id = submit(client).id
    client.fine_tuning.jobs.cancel(job_id)
    while not move_events(live_gateway.services, job_id):
        pass
    before, folder = client.fine_tuning.jobs.list_events(job_id).data, tmp_path / "backup"
    backup(live_gateway.services.settings, "create", str(folder))
    backup(elsewhere, "restore", str(folder))
    with run_gateway(elsewhere) as gateway:
        assert gateway.client(client.api_key).fine_tuning.jobs.list_events(job_id).data == before
    assert len(before) == 3
    digest = job_row(live_gateway.services, job_id).events_digest
    assert digest is not None
    ArtifactStores(f"file://{folder / STORE_FOLDER}").of_job(job_id).delete(digest)
    with pytest.raises(IntegrityError, match=r"the record of job .* events is missing"):
        backup(live_gateway.services.settings, "verify", str(folder))


def test_a_second_backup_keeps_what_is_there(before: Before, saved: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in (saved / STORE_FOLDER).rglob("*") if path.is_file()}
    backup(before.services.settings, "create", str(saved))
    assert {path: path.stat().st_mtime_ns for path in (saved / STORE_FOLDER).rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("damage", ["artifact", "rows", "half", "no rows"])
def test_a_damaged_backup_is_found_out(before: Before, saved: Path, damage: str) -> None:
    if damage == "half":
        (saved / CONTENTS_FILE).unlink()
    elif damage == "no rows":
        (saved / ROWS_FILE).unlink()
    elif damage == "rows":
        (saved / ROWS_FILE).write_bytes((saved / ROWS_FILE).read_bytes()[:-20])
    else:
        path = max(
            (path for path in (saved / STORE_FOLDER).rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
        )
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises((IntegrityError, ConfigurationError)):
        backup(before.services.settings, "verify", str(saved))
