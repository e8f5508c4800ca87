"""Attempts are counted over all tenants that an operator made for one organisation; none is told the others' jobs."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, spec_of, submit, upload, validate_here
from tests.gateway.jobs.test_earlier_attempts import Customer, announcements, training_file


def tenant(gateway: LiveGateway, worker: HandWorker, name: str, *, organisation: str | None = "umbrella") -> Customer:
    return Customer(gateway, gateway.client(gateway.tenant_key(name, organisation=organisation)), worker)


@pytest.fixture
def first(live_gateway: LiveGateway, worker: HandWorker) -> Customer:
    return tenant(live_gateway, worker, "umbrella-red")


@pytest.fixture
def second(live_gateway: LiveGateway, worker: HandWorker) -> Customer:
    return tenant(live_gateway, worker, "umbrella-blue")


def test_attempts_of_another_tenant_of_the_organisation_count(first: Customer, second: Customer) -> None:
    first.rejected(training_file())
    second.rejected(training_file())
    assert first.attempt(training_file()) == 3


def test_attempts_of_another_organisation_do_not_count(
    first: Customer, live_gateway: LiveGateway, worker: HandWorker
) -> None:
    first.rejected(training_file())
    assert tenant(live_gateway, worker, "other", organisation="other").attempt(training_file()) == 1


def test_tenants_without_an_organisation_are_none_together(live_gateway: LiveGateway, worker: HandWorker) -> None:
    tenant(live_gateway, worker, "alone", organisation=None).rejected(training_file())
    assert tenant(live_gateway, worker, "solitary", organisation=None).attempt(training_file()) == 1


def test_organisation_that_is_called_like_a_tenant_is_not_that_tenant(
    first: Customer, live_gateway: LiveGateway, worker: HandWorker
) -> None:
    """`umbrella` is a tenant without an organisation here."""
    first.rejected(training_file())
    assert tenant(live_gateway, worker, "umbrella", organisation=None).attempt(training_file()) == 1


def test_newest_jobs_of_another_tenant_are_looked_at_whatever_the_index_says(
    first: Customer, second: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.jobs.fingerprints.LOOKED_AT", 2.0)  # so that the index finds none
    first.rejected(training_file())
    assert second.attempt(training_file()) == 2


def test_number_is_told_and_no_job_of_another_tenant(first: Customer, second: Customer) -> None:
    strange, own = first.rejected(training_file()), second.rejected(training_file())
    job_id = second.queued(training_file())
    events = second.client.fine_tuning.jobs.list_events(job_id, limit=100).data
    (message,) = announcements(second.client, job_id)
    told = next(event for event in events if event.message == message)
    assert told.data == {"attempt": 3, "earlier_jobs": [own]}
    assert not any(strange in event.model_dump_json() for event in events)


def test_jobs_of_two_tenants_at_the_same_time_are_not_both_first_attempts(
    first: Customer, second: Customer, live_gateway: LiveGateway
) -> None:
    jobs = [submit(each.client, training_file=upload(each.client, training_file())).id for each in (first, second)]
    at_once = [threading.Thread(target=validate_here, args=(live_gateway.services, job_id)) for job_id in jobs]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    assert sorted(spec_of(live_gateway.services, job_id).attempt for job_id in jobs) == [1, 2]


def test_tenant_that_joins_an_organisation_brings_its_attempts_along(
    first: Customer, live_gateway: LiveGateway, worker: HandWorker
) -> None:
    tenant(live_gateway, worker, "bought", organisation=None).rejected(training_file())
    with live_gateway.services.database.transaction() as session:
        session.execute(text("UPDATE tenants SET organisation = 'umbrella' WHERE name = 'bought'"))
    assert first.attempt(training_file()) == 2
