"""Jobs that an earlier version of the gateway wrote down: shown once they are migrated, and worked on no more."""

from __future__ import annotations

import httpx
from alembic import command
from openai import OpenAI
from sqlalchemy import select, text

from gateway.migrate import alembic_config, upgrade
from gateway.tables.jobs import Job
from gateway.workers.reconciler import reconcile
from policies.contract.artifacts import canonical_json, digest_bytes
from policies.contract.worker_api import Completion, Outcome
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, error_code, evaluate, job_row, spec_of, submit, validate_here
from tests.gateway.records import training_record

EARLIER = "created_by_earlier_version"


def upgraded(gateway: LiveGateway, job_id: str) -> None:
    """Gives the job's spec the form and digest that it had before migration 0003, and migrates it."""
    database = gateway.services.database
    config = alembic_config()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        spec = connection.scalar(select(Job.spec).where(Job.id == job_id))
        assert spec is not None
        assert {"unaligned_base", "lora", "trainer", "checkpoint_every_steps"} < set(spec)
        assert set(spec["base_model"]) == {"name", "uri", "revision", "hub_id"}  # the last came later
        digest = digest_bytes(canonical_json(spec))
        connection.execute(
            text("UPDATE jobs SET spec_digest = :digest WHERE id = :id"), {"digest": digest, "id": job_id}
        )
        connection.commit()
    database.close()  # what is open is not migrated
    upgrade(gateway.services.settings.database_url)


def test_a_finished_job_is_still_shown_with_its_report(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    evaluate(live_gateway, worker, trained)
    before, spec = client.fine_tuning.jobs.retrieve(trained), spec_of(live_gateway.services, trained)
    upgraded(live_gateway, trained)
    assert before.status == "succeeded"
    assert client.fine_tuning.jobs.retrieve(trained) == before
    assert spec_of(live_gateway.services, trained) == spec
    client.get(f"{live_gateway.url}/v1/guardrail/jobs/{trained}/report", cast_to=httpx.Response)


def test_a_job_that_waits_for_its_validation_fails(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    upgraded(live_gateway, job_id)
    validate_here(live_gateway.services, job_id)
    assert error_code(live_gateway.services, job_id) == EARLIER
    error = client.fine_tuning.jobs.retrieve(job_id).error
    assert error is not None
    assert "create it again" in error.message


def test_a_job_that_waits_for_a_worker_fails_and_is_not_handed_out(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    upgraded(live_gateway, job_id)
    assert worker.claim(job_id) is None
    assert error_code(live_gateway.services, job_id) == EARLIER
    assert job_row(live_gateway.services, job_id).lease_until is None


def test_a_trained_job_is_not_evaluated(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    upgraded(live_gateway, trained)
    assert worker.claim(trained, "evaluate") is None
    assert error_code(live_gateway.services, trained) == EARLIER


def test_a_training_that_was_under_way_is_not_accepted(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    """The worker answers after the upgrade, about the spec that it was given before, and as a worker of before."""
    claim = worker.must_claim(job_id)
    upgraded(live_gateway, job_id)
    digest = job_row(live_gateway.services, job_id).spec_digest
    store = live_gateway.services.stores.shared
    record = store.put_record(training_record(claim.spec, store, spec=digest))
    assert worker.complete(claim.attempt_token, Completion(outcome=Outcome.SUCCEEDED, record=record)).status_code == 410
    assert job_row(live_gateway.services, job_id).training_record_digest is None
    live_gateway.clock.advance(live_gateway.services.settings.lease_seconds + 1)
    with live_gateway.services.database.transaction() as session:
        reconcile(session, live_gateway.services, live_gateway.clock())
    assert worker.claim(job_id) is None
    assert error_code(live_gateway.services, job_id) == EARLIER
