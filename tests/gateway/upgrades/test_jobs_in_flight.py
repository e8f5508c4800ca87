"""Jobs that an earlier version left in the middle of things come to their end after the upgrade, and none is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from openai import OpenAI

from gateway.jobs.outbox import dispatch
from gateway.settings import GatewaySettings
from gateway.tables.tenancy import Tenant
from gateway.tenants.keys import create_key, find_tenant
from gateway.workers.reconciler import reconcile
from policies.contract.tasks import VALIDATE_FILES
from policies.contract.worker_api import Completion, Outcome, WorkKind
from tests.gateway.conftest import LiveGateway, run_gateway
from tests.gateway.hand_worker import HandWorker, error_code, evaluate, job_row, train, validate_here
from tests.gateway.upgrades.conftest import Tunegate
from tests.gateway.upgrades.earlier_versions import (
    ENDED,
    ONE_STORE,
    RUNNING,
    SEPARATE_STORES,
    Earlier,
    earlier,
    put_back,
)

TRAINED = ("awaiting_evaluation", "evaluating", "paused_trained")


class Upgraded(NamedTuple):
    """The gateway of this version on what an earlier one left."""

    earlier: Earlier
    gateway: LiveGateway
    client: OpenAI
    worker: HandWorker

    def phase(self, name: str) -> str:
        return job_row(self.gateway.services, self.earlier.jobs[name]).phase

    def let_leases_run_out(self) -> None:
        self.gateway.clock.advance(self.gateway.services.settings.lease_seconds + 1)
        with self.gateway.services.database.transaction() as session:
            reconcile(session, self.gateway.services, self.gateway.clock())

    def require_released_by_decision(self, job_id: str) -> None:
        job = job_row(self.gateway.services, job_id)
        assert (job.phase, job.decision) == ("released", "release")
        assert job.decision_digest is not None
        assert self.client.models.retrieve(str(job.fine_tuned_model)).id == job.fine_tuned_model


@pytest.fixture(params=[*ONE_STORE, *SEPARATE_STORES])
def upgraded(
    request: pytest.FixtureRequest, settings: GatewaySettings, store: Path, tunegate: Tunegate, tmp_path: Path
) -> Iterator[Upgraded]:
    found = earlier(request.param)
    put_back(found, url=settings.database_url, store=store)
    tunegate("upgrade", "--backup", str(tmp_path / "backup"))
    with run_gateway(settings) as gateway:
        gateway.clock.now = found.now
        with gateway.services.database.transaction() as session:
            tenant = find_tenant(session, "acme")
            assert isinstance(tenant, Tenant)
            key = create_key(session, tenant, now=gateway.services.now()).secret
        worker = HandWorker(gateway, "new-worker")
        yield Upgraded(found, gateway, gateway.client(key), worker)
        worker.close()


def test_every_job_is_where_it_was(upgraded: Upgraded) -> None:
    assert {upgraded.phase(name) for name in upgraded.earlier.jobs} == {
        name.removesuffix("_trained") for name in upgraded.earlier.jobs
    }
    listed = {job.id for job in upgraded.client.fine_tuning.jobs.list(limit=100)}
    assert listed == set(upgraded.earlier.jobs.values())


def test_what_had_ended_is_shown_as_before(upgraded: Upgraded) -> None:
    jobs = upgraded.earlier.jobs
    upgraded.require_released_by_decision(jobs["released"])
    shown = {name: upgraded.client.fine_tuning.jobs.retrieve(jobs[name]) for name in ENDED}
    assert [job.status for job in shown.values()] == ["succeeded", "failed", "failed", "cancelled"]
    assert shown["released"].metadata == {"team": "blue"}
    assert upgraded.client.get(f"/guardrail/jobs/{jobs['rejected']}/report", cast_to=object)
    assert upgraded.client.files.content(upgraded.earlier.files["kept"]).read() == b'{"kept": 1}\n'


def test_attempts_of_the_version_before_change_nothing_more(upgraded: Upgraded) -> None:
    """Their leases may still hold, but they did not say of what kind they are and whose, and nobody can say so now."""
    kinds: tuple[WorkKind, ...] = ("train", "evaluate")
    for name, kind in product(RUNNING, kinds):
        token = upgraded.earlier.row("jobs", upgraded.earlier.jobs[name])["attempt_token"]
        upgraded.worker.speak_as(token, kind)
        assert upgraded.worker.heartbeat(token) == "lost"
        assert upgraded.worker.complete(token, Completion(outcome=Outcome.YIELDED)).status_code == 410
        assert upgraded.phase(name) == name


def test_what_was_to_be_sent_is_sent(upgraded: Upgraded) -> None:
    sent: list[tuple[str, list[object]]] = []

    def send(task: str, queue: str, arguments: Sequence[object]) -> None:
        sent.append((task, list(arguments)))

    with upgraded.gateway.services.database.transaction() as session:
        dispatch(session, send)
    waiting = [row for table, row in upgraded.earlier.rows if table == "outbox" and not row["sent"]]
    assert sorted(map(str, sent)) == sorted(str((row["task"], row["arguments"])) for row in waiting)
    assert (VALIDATE_FILES, [upgraded.earlier.jobs["validating"]]) in sent


def test_every_job_comes_to_its_end(upgraded: Upgraded) -> None:
    """Eight are evaluated by this version, and each is released by a decision of the gate, but for those whose adapter
    is none of the form that may be released by now: they fail, and the other five are released."""
    jobs, gateway, worker = upgraded.earlier.jobs, upgraded.gateway, upgraded.worker
    upgraded.let_leases_run_out()
    assert [upgraded.phase(name) for name in RUNNING] == ["queued", "awaiting_evaluation", "paused", "cancelled"]
    for name in ("paused", "pausing", "paused_trained"):
        upgraded.client.fine_tuning.jobs.resume(jobs[name])
    validate_here(gateway.services, jobs["validating"])
    under_way = [name for name in jobs if name not in (*ENDED, "cancelling")]
    assert len(under_way) == 8
    for name in under_way:
        if name not in TRAINED:
            train(gateway, worker, jobs[name])
        assert upgraded.phase(name) == "awaiting_evaluation"
        assert job_row(gateway.services, jobs[name]).fine_tuned_model is None
        evaluate(gateway, worker, jobs[name])
        if name in TRAINED and upgraded.earlier.revision in ONE_STORE:
            assert error_code(gateway.services, jobs[name]) == "integrity_error"
        else:
            upgraded.require_released_by_decision(jobs[name])
    assert {upgraded.phase(name) for name in jobs} == {"released", "rejected", "failed", "cancelled"}


def test_a_training_goes_on_from_the_checkpoint_of_the_version_before(upgraded: Upgraded) -> None:
    """Where its state is a folder that can be read; otherwise from the start, and never not at all."""
    upgraded.let_leases_run_out()
    claim = upgraded.worker.must_claim(upgraded.earlier.jobs["training"])
    is_readable = upgraded.earlier.revision in SEPARATE_STORES
    assert (claim.attempt, claim.resume_from and claim.resume_from.step) == (2, 2 if is_readable else None)
