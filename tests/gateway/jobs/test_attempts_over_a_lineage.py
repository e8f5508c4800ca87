"""Bad data that is dealt out over models that continue each other takes no more chances than in one file."""

from __future__ import annotations

import pytest
from openai import OpenAI
from sqlalchemy import func, select

from gateway.tables.fingerprints import FingerprintAnchor, JobFingerprint, ModelFingerprint
from gateway.tables.jobs import Job
from gateway.tables.statistics import PhaseTransition
from policies.contract.worker_api import Outcome
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import BASE_MODEL_NAME, HandWorker, error_code, evaluate, job_row, spec_of, train
from tests.gateway.jobs import test_earlier_attempts as plain

training_file = plain.training_file
BAD = range(200, 240)
FIRST_HALF, SECOND_HALF = range(200, 220), range(220, 240)


class Customer(plain.Customer):
    """Trains rows of the given seeds, on a base model or a released one."""

    def released(self, seeds: range, model: str = BASE_MODEL_NAME) -> str:
        name = job_row(self.gateway.services, self._ended(seeds, model, drift=0.0)).fine_tuned_model
        assert name is not None
        return name

    def refused(self, seeds: range, model: str = BASE_MODEL_NAME) -> None:
        assert job_row(self.gateway.services, self._ended(seeds, model, drift=0.5)).phase == "rejected"

    def number(self, seeds: range, model: str = BASE_MODEL_NAME) -> int:
        """Which attempt a job would be; it is cancelled at once, so that it doesn't count itself."""
        job_id = self.queued(training_file(seeds), model=model)
        attempt = spec_of(self.gateway.services, job_id).attempt
        self.client.fine_tuning.jobs.cancel(job_id)
        return attempt

    def _ended(self, seeds: range, model: str, *, drift: float) -> str:
        job_id = self.queued(training_file(seeds), model=model)
        train(self.gateway, self.worker, job_id)
        evaluate(self.gateway, self.worker, job_id, drift=drift)
        return job_id


@pytest.fixture
def customer(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> Customer:
    return Customer(live_gateway, client, worker)


def test_a_refused_file_on_top_of_a_harmless_model_is_a_second_attempt(customer: Customer) -> None:
    customer.refused(BAD)
    assert customer.number(BAD, customer.released(range(40))) == 2


def test_a_file_that_was_refused_on_top_of_a_model_is_a_second_attempt_on_the_base(customer: Customer) -> None:
    customer.refused(BAD, customer.released(range(100)))
    assert customer.number(BAD) == 2


def test_the_halves_of_a_file_in_the_other_order_are_a_second_attempt(customer: Customer) -> None:
    """The half that is refused is not trained again itself, but a model that knows it already is."""
    first, second = customer.released(FIRST_HALF), customer.released(SECOND_HALF)
    customer.refused(SECOND_HALF, first)
    assert customer.number(FIRST_HALF, second) == 2


def test_what_was_refused_in_parts_is_a_second_attempt_as_a_whole(customer: Customer) -> None:
    customer.refused(SECOND_HALF, customer.released(FIRST_HALF))
    assert customer.number(BAD) == 2


def test_what_was_refused_as_a_whole_is_a_second_attempt_in_parts(customer: Customer) -> None:
    first = customer.released(FIRST_HALF)
    customer.refused(BAD)
    assert customer.number(SECOND_HALF, first) == 2
    assert customer.number(range(10), first) == 2, "two thirds of what the new model would know were refused"


def test_a_large_harmless_model_underneath_is_no_way_out(customer: Customer) -> None:
    """As wholes the lineages share a sixth, and their last files nothing; their last two files are the same."""
    one = customer.released(FIRST_HALF, customer.released(range(600, 800)))
    customer.refused(SECOND_HALF, one)
    other = customer.released(SECOND_HALF, customer.released(range(1000, 1200)))
    assert customer.number(FIRST_HALF, other) == 2


def test_unrelated_data_on_top_of_a_model_is_a_first_attempt(customer: Customer) -> None:
    customer.refused(BAD)
    first = customer.released(range(40))
    assert customer.number(range(40, 80), first) == 1


def test_releases_on_top_of_one_model_count_for_nothing(customer: Customer) -> None:
    first = customer.released(range(40))
    customer.released(range(40, 50), first)
    assert customer.number(range(50, 60), first) == 1


def test_a_refusal_counts_for_what_else_is_little_beside_the_same_model(customer: Customer) -> None:
    """As it would in one file with all that the model was trained on."""
    first = customer.released(range(40))
    customer.refused(range(40, 50), first)
    assert customer.number(range(50, 60), first) == 2


def test_a_job_that_ends_at_the_claim_of_its_evaluation_was_none(customer: Customer) -> None:
    """Neither an attempt nor one of the day's evaluations, and nothing of its file is remembered."""
    first = customer.released(range(40))
    job_id = customer.queued(training_file(BAD), model=first)
    train(customer.gateway, customer.worker, job_id)
    customer.client.models.delete(first)
    assert customer.worker.claim(job_id, "evaluate") is None
    services = customer.gateway.services
    assert error_code(services, job_id) == "continued_model_gone"
    assert job_row(services, job_id).evaluated_at is None
    with services.database.reading() as session:
        assert session.get(JobFingerprint, job_id) is None
        moves = select(PhaseTransition.phase_from).where(PhaseTransition.job_id == job_id)
        assert session.scalars(moves.where(PhaseTransition.phase_to == "failed")).all() == ["awaiting_evaluation"]
    assert customer.number(BAD) == 1


def test_a_job_that_ends_at_a_second_claim_of_its_evaluation_was_evaluated(customer: Customer) -> None:
    first = customer.released(range(40))
    job_id = customer.queued(training_file(BAD), model=first)
    train(customer.gateway, customer.worker, job_id)
    customer.worker.end(customer.worker.must_claim(job_id, "evaluate").attempt_token, Outcome.YIELDED)
    customer.client.models.delete(first)
    assert customer.worker.claim(job_id, "evaluate") is None
    assert customer.number(BAD) == 2


def test_another_tenant_has_nothing_to_do_with_it(customer: Customer) -> None:
    customer.refused(SECOND_HALF, customer.released(FIRST_HALF))
    key = customer.gateway.tenant_key("other")
    stranger = Customer(customer.gateway, customer.gateway.client(key), customer.worker)
    assert stranger.number(SECOND_HALF, stranger.released(FIRST_HALF)) == 1


def test_a_refused_lineage_is_found_by_the_index_alone(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where so many jobs came after it that it is not among the newest."""
    monkeypatch.setattr("gateway.jobs.fingerprints.N_LATEST", 0)
    first, second = customer.released(FIRST_HALF), customer.released(SECOND_HALF)
    customer.refused(SECOND_HALF, first)
    assert customer.number(FIRST_HALF, second) == 2


def test_of_a_release_only_what_it_was_trained_on_is_kept(customer: Customer) -> None:
    second = customer.released(range(40, 80), customer.released(range(40)))
    with customer.gateway.services.database.reading() as session:
        counts = [
            session.scalar(select(func.count()).select_from(table))
            for table in (FingerprintAnchor, JobFingerprint, ModelFingerprint)
        ]
        job_id = session.scalar(select(Job.id).where(Job.fine_tuned_model == second))
        assert session.get(ModelFingerprint, job_id) is not None
    assert counts == [0, 0, 2]
