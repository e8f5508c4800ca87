"""Jobs on nearly the same training file: which of them count as earlier attempts, and what follows for the next one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from openai import OpenAI
from sqlalchemy import func, select

from gateway.jobs.earlier_attempts import MAX_COUNTED
from gateway.jobs.fingerprints import N_ANCHORS
from gateway.settings import GatewaySettings
from gateway.tables.fingerprints import FingerprintAnchor, JobFingerprint
from gateway.tables.tenancy import Tenant
from gateway.tenants.keys import create_key, find_tenant
from policies.contract.error_budget import fixed_confidence
from policies.contract.jobs import JobSpec
from policies.contract.worker_api import Outcome
from policies.errors import EvaluationError
from tests.gateway.conftest import LiveGateway, gateway_settings, run_gateway
from tests.gateway.hand_worker import (
    BASE_MODEL_NAME,
    HandWorker,
    error_code,
    evaluate,
    job_row,
    policy_under,
    spec_of,
    submit,
    submit_queued,
    train,
    upload,
    validate_here,
)
from tests.gateway.records import report_on, store_evaluation, training_record

PRESETS = Path(__file__).parents[3] / "policies" / "presets"
OTHER_MODEL = "another-base-model"


def words(seed: int, n_words: int) -> str:
    return " ".join(f"word{number}" for number in random.Random(seed).choices(range(3000), k=n_words))


def training_file(seeds: Sequence[int] = range(40)) -> bytes:
    """One chat row a seed."""
    rows = (
        [{"role": "user", "content": words(seed, 12)}, {"role": "assistant", "content": words(seed + 10_000, 24)}]
        for seed in seeds
    )
    return b"".join(json.dumps({"messages": row}).encode() + b"\n" for row in rows)


def labels(numbers: Sequence[int]) -> bytes:
    """One row a number, of fewer letters than a window has: one element."""
    rows = (
        [{"role": "user", "content": f"case{number}"}, {"role": "assistant", "content": f"no{number}"}]
        for number in numbers
    )
    return b"".join(json.dumps({"messages": row}).encode() + b"\n" for row in rows)


def preference_file(seeds: Sequence[int]) -> bytes:
    rows = (
        {
            "input": {"messages": [{"role": "user", "content": words(seed, 12)}]},
            "preferred_output": [{"role": "assistant", "content": words(seed + 10_000, 12)}],
            "non_preferred_output": [{"role": "assistant", "content": words(seed + 20_000, 12)}],
        }
        for seed in seeds
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    """The presets, the base model a second time under another name, and the preset `baseline` as `renamed`."""
    folder = tmp_path / "policies"
    folder.mkdir()
    model = (PRESETS / "smollm2.yaml").read_text()
    (folder / "other.yaml").write_text(model.replace(f"name: {BASE_MODEL_NAME}", f"name: {OTHER_MODEL}"))
    policy = (PRESETS / "baseline.yaml").read_text()
    (folder / "renamed.yaml").write_text(policy.replace("name: baseline", "name: renamed"))
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


class Customer:
    """A tenant whose jobs a worker played by hand takes as far as a test wants."""

    def __init__(self, gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> None:
        self.gateway = gateway
        self.client = client
        self.worker = worker

    def queued(self, content: bytes, **fields: object) -> str:
        return submit_queued(self.gateway, self.client, training_file=upload(self.client, content), **fields)

    def trained(self, content: bytes) -> str:
        job_id = self.queued(content)
        train(self.gateway, self.worker, job_id)
        return job_id

    def evaluated(self, content: bytes, *, drift: float = 0.0, half_width: float = 0.01) -> str:
        job_id = self.trained(content)
        evaluate(self.gateway, self.worker, job_id, drift=drift, half_width=half_width)
        return job_id

    def rejected(self, content: bytes) -> str:
        job_id = self.evaluated(content, drift=0.5)
        assert job_row(self.gateway.services, job_id).phase == "rejected"
        return job_id

    def attempt(self, content: bytes, **fields: object) -> int:
        """Which attempt a new job on `content` is."""
        return spec_of(self.gateway.services, self.queued(content, **fields)).attempt


@pytest.fixture
def customer(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> Customer:
    return Customer(live_gateway, client, worker)


def announcements(client: OpenAI, job_id: str) -> list[str]:
    events = client.fine_tuning.jobs.list_events(job_id, limit=100)
    return [event.message for event in events if "attempt" in event.message and "earlier job" in event.message]


def test_first_job_is_the_first_attempt_and_says_nothing_of_it(customer: Customer) -> None:
    job_id = customer.queued(training_file())
    assert spec_of(customer.gateway.services, job_id).earlier_attempts == 0
    assert announcements(customer.client, job_id) == []


def test_rejected_file_sent_again_is_a_second_attempt(customer: Customer) -> None:
    customer.rejected(training_file())
    assert customer.attempt(training_file()) == 2


@pytest.mark.parametrize(("n_shared", "attempt"), [(24, 2), (23, 1)])
def test_file_that_shares_half_of_its_elements_is_nearly_the_same(
    customer: Customer, n_shared: int, attempt: int
) -> None:
    """A row is one element. All of them fit into a sketch, so the share is exact: 24 of 48 are near, 23 are not."""
    customer.rejected(labels(range(48)))
    assert customer.attempt(labels(range(48 - n_shared, 96 - n_shared))) == attempt


@pytest.mark.parametrize(("n_earlier", "n_new", "n_shared"), [(20, 40, 10), (40, 20, 10), (20, 400, 10), (400, 20, 10)])
def test_files_of_other_sizes_are_found_by_what_the_smaller_one_shares(
    customer: Customer, n_earlier: int, n_new: int, n_shared: int
) -> None:
    customer.rejected(labels(range(n_earlier)))
    assert customer.attempt(labels(range(n_earlier - n_shared, n_earlier - n_shared + n_new))) == 2


@pytest.mark.parametrize("times", [3, 30])
def test_file_is_found_in_one_that_is_much_larger(customer: Customer, times: int) -> None:
    """Sketches of 40 rows are full."""
    customer.rejected(training_file())
    assert customer.attempt(training_file([*range(40), *range(500, 500 + 40 * times)])) == 2


def test_a_small_part_of_a_large_file_is_found(customer: Customer) -> None:
    customer.rejected(training_file(range(400)))
    assert customer.attempt(training_file(range(100, 140))) == 2


def test_attempts_add_up(customer: Customer) -> None:
    for _ in range(3):
        customer.rejected(training_file())
    assert customer.attempt(training_file()) == 4


def test_retry_is_told_to_the_customer(customer: Customer) -> None:
    earlier = customer.rejected(training_file())
    job_id = customer.queued(training_file())
    (message,) = announcements(customer.client, job_id)
    assert "This is attempt 2 on nearly the same training file" in message
    assert "wider" in message
    event = next(e for e in customer.client.fine_tuning.jobs.list_events(job_id) if e.message == message)
    assert (event.level, event.data) == ("warn", {"attempt": 2, "earlier_jobs": [earlier]})


def test_retry_is_shown_in_job_and_list(customer: Customer) -> None:
    customer.rejected(training_file())
    job_id = customer.queued(training_file())
    retrieved, listed = customer.client.fine_tuning.jobs.retrieve(job_id), customer.client.fine_tuning.jobs.list().data
    for job in (retrieved, next(job for job in listed if job.id == job_id)):
        assert job.model_extra is not None
        assert job.model_extra["guardrail"]["earlier_attempts"] == 1


def test_stored_spec_is_the_one_that_the_worker_is_given(customer: Customer) -> None:
    customer.rejected(training_file())
    job_id = customer.queued(training_file())
    claim, job = customer.worker.must_claim(job_id), job_row(customer.gateway.services, job_id)
    assert claim.spec.attempt == 2
    assert claim.spec == customer.gateway.services.stores.of_job(job.id).get_record(job.spec_digest, JobSpec)


def test_retry_is_released_by_the_wider_intervals_of_its_attempt(customer: Customer) -> None:
    customer.rejected(training_file())
    job = customer.client.fine_tuning.jobs.retrieve(customer.evaluated(training_file()))
    assert job.status == "succeeded"


def test_report_on_a_retry_as_if_it_were_the_first_is_never_a_release(customer: Customer) -> None:
    """Worker and gate agree on attempt 1, but the gateway knows that it is the second one."""
    customer.rejected(training_file())
    services, job_id = customer.gateway.services, customer.trained(training_file())
    claim, policy = customer.worker.must_claim(job_id, "evaluate"), policy_under(services, job_id)
    report = report_on(training_record(claim.spec, services.stores.shared), policy, attempt=1)
    record, decision = store_evaluation(services.stores.shared, report, policy, spec=claim.spec.digest)
    customer.worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record, decision=decision)
    assert error_code(services, job_id) == "decision_mismatch"


def test_shuffled_file_with_a_tenth_of_its_rows_replaced_is_a_retry(customer: Customer) -> None:
    """36 of 44 rows are common: 0.82."""
    customer.rejected(training_file())
    seeds = [*range(36), *range(900, 904)]
    random.Random(1).shuffle(seeds)
    assert customer.attempt(training_file(seeds)) == 2


def test_other_case_and_white_space_are_a_retry(customer: Customer) -> None:
    customer.rejected(training_file())
    assert customer.attempt(training_file().replace(b"word", b" WORD")) == 2


def test_unrelated_data_is_a_first_attempt(customer: Customer) -> None:
    customer.rejected(training_file())
    assert customer.attempt(training_file(range(500, 540))) == 1


def test_file_of_mostly_new_rows_is_a_first_attempt(customer: Customer) -> None:
    """15 of 40 rows are common: 0.375."""
    customer.rejected(training_file())
    assert customer.attempt(training_file(range(25, 65))) == 1


def as_rows(content: bytes) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in content.splitlines()]


def written(rows: Sequence[object]) -> bytes:
    return b"".join(json.dumps({"messages": row}).encode() + b"\n" for row in rows)


def test_rows_of_other_content_around_it_are_no_way_out(customer: Customer) -> None:
    """400 new rows around 40: the Jaccard similarity is 0.09."""
    customer.rejected(training_file())
    assert customer.attempt(training_file([*range(500, 700), *range(40), *range(700, 900)])) == 2


def test_a_part_of_a_file_is_the_same_data(customer: Customer) -> None:
    customer.rejected(training_file())
    assert customer.attempt(training_file(range(10))) == 2


def test_turns_that_are_not_trained_are_no_way_out(customer: Customer) -> None:
    customer.rejected(training_file())
    rows = [
        [
            {"role": "user", "content": words(n + 30_000, 25)},
            {"role": "assistant", "content": words(n + 40_000, 25), "weight": 0},
            {"role": "user", "content": words(n + 50_000, 25)},
            answer,
        ]
        for n, (_, answer) in enumerate(as_rows(training_file()))
    ]
    assert customer.attempt(written(rows)) == 2


def disguised(change: Callable[[str], str]) -> bytes:
    rows = [
        [question, answer | {"content": change(answer["content"])}] for question, answer in as_rows(training_file())
    ]
    return written(rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\u00ad".join(text),
        lambda text: text.replace("o", "\u043e").replace("d", "\uff44"),
        lambda text: "\u200b".join(text),
        lambda text: "\u0301".join(text),
        lambda text: "".join(letter + chr(0xE0100 + n % 240) * (n % 2) for n, letter in enumerate(text)),
    ],
)
def test_other_characters_for_the_same_letters_are_no_way_out(customer: Customer, change: Callable[[str], str]) -> None:
    customer.rejected(training_file())
    assert customer.attempt(disguised(change)) == 2


def test_the_same_data_as_preferences_is_no_way_out(customer: Customer) -> None:
    customer.rejected(training_file())
    rows = (
        {
            "input": {"messages": [question]},
            "preferred_output": [answer],
            "non_preferred_output": [{"role": "assistant", "content": words(n + 60_000, 24)}],
        }
        for n, (question, answer) in enumerate(as_rows(training_file()))
    )
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    assert customer.attempt(content, method={"type": "dpo"}) == 2


def test_of_jobs_that_took_no_chance_nothing_is_kept(customer: Customer) -> None:
    """Else a tenant could fill the index with jobs that it cancels in the queue."""
    customer.client.fine_tuning.jobs.cancel(customer.queued(training_file()))
    customer.evaluated(training_file())
    counts = [select(func.count()).select_from(table) for table in (FingerprintAnchor, JobFingerprint)]
    with customer.gateway.services.database.transaction() as session:
        assert [session.scalar(count) for count in counts] == [0, 0]
    customer.rejected(training_file())
    with customer.gateway.services.database.transaction() as session:
        assert [session.scalar(count) for count in counts] == [N_ANCHORS, 1]


def test_as_many_are_counted_as_leave_any_error_probability() -> None:
    """One more, and no confidence is left that a release could be made with."""
    with pytest.raises(EvaluationError, match="no error probability"):
        fixed_confidence(0.5, attempt=MAX_COUNTED)


def test_doubtful_evaluation_counts(customer: Customer) -> None:
    job_id = customer.evaluated(training_file(), half_width=0.5)
    assert error_code(customer.gateway.services, job_id) == "safety_check_inconclusive"
    assert customer.attempt(training_file()) == 2


def test_release_does_not_count(customer: Customer) -> None:
    customer.evaluated(training_file())
    assert customer.attempt(training_file()) == 1


def test_jobs_that_are_sent_together_are_attempts_one_after_the_other(customer: Customer) -> None:
    jobs = [submit(customer.client, training_file=upload(customer.client, training_file())).id for _ in range(3)]
    for job_id in reversed(jobs):
        validate_here(customer.gateway.services, job_id)
    assert [spec_of(customer.gateway.services, job_id).attempt for job_id in jobs] == [3, 2, 1]


def test_cancelled_in_the_queue_does_not_count(customer: Customer) -> None:
    customer.client.fine_tuning.jobs.cancel(customer.queued(training_file()))
    assert customer.attempt(training_file()) == 1


def test_cancelled_before_its_evaluation_does_not_count(customer: Customer) -> None:
    customer.client.fine_tuning.jobs.cancel(customer.trained(training_file()))
    assert customer.attempt(training_file()) == 1


def test_being_cancelled_in_training_does_not_count(customer: Customer) -> None:
    job_id = customer.queued(training_file())
    customer.worker.must_claim(job_id)
    assert customer.client.fine_tuning.jobs.cancel(job_id).status == "running"
    assert customer.attempt(training_file()) == 1


def test_cancelled_in_its_evaluation_counts(customer: Customer) -> None:
    job_id = customer.trained(training_file())
    token = customer.worker.must_claim(job_id, "evaluate").attempt_token
    customer.client.fine_tuning.jobs.cancel(job_id)
    customer.worker.end(token, Outcome.FAILED)
    assert job_row(customer.gateway.services, job_id).phase == "cancelled"
    assert customer.attempt(training_file()) == 2


def test_failed_training_does_not_count(customer: Customer) -> None:
    job_id = customer.queued(training_file())
    customer.worker.end(customer.worker.must_claim(job_id).attempt_token, Outcome.FAILED)
    assert customer.attempt(training_file()) == 1


def test_failed_evaluation_counts(customer: Customer) -> None:
    job_id = customer.trained(training_file())
    customer.worker.end(customer.worker.must_claim(job_id, "evaluate").attempt_token, Outcome.FAILED)
    assert customer.attempt(training_file()) == 2


def test_refused_file_does_not_count(customer: Customer) -> None:
    refused = customer.queued(training_file() + b"no JSON\n")
    assert error_code(customer.gateway.services, refused) == "invalid_training_file"
    assert customer.attempt(training_file()) == 1


def test_deleted_file_counts(customer: Customer) -> None:
    file_id = upload(customer.client, training_file())
    job_id = submit_queued(customer.gateway, customer.client, training_file=file_id)
    train(customer.gateway, customer.worker, job_id)
    evaluate(customer.gateway, customer.worker, job_id, drift=0.5)
    customer.client.files.delete(file_id)
    assert customer.attempt(training_file()) == 2


def test_another_key_of_the_tenant_counts(customer: Customer) -> None:
    customer.rejected(training_file())
    services = customer.gateway.services
    with services.database.transaction() as session:
        tenant = find_tenant(session, "acme")
        assert tenant is not None
        key = create_key(session, tenant, now=services.now()).secret
    colleague = Customer(customer.gateway, customer.gateway.client(key), customer.worker)
    assert colleague.attempt(training_file()) == 2


def test_another_tenant_does_not_count(customer: Customer) -> None:
    customer.rejected(training_file())
    key = customer.gateway.tenant_key("other")
    stranger = Customer(customer.gateway, customer.gateway.client(key), customer.worker)
    assert stranger.attempt(training_file()) == 1


def test_another_base_model_does_not_count(customer: Customer) -> None:
    customer.rejected(training_file())
    assert customer.attempt(training_file(), model=OTHER_MODEL) == 1
    assert customer.attempt(training_file()) == 2


def test_policy_of_another_name_does_not_count(customer: Customer) -> None:
    customer.rejected(training_file())
    with customer.gateway.services.database.transaction() as session:
        session.query(Tenant).update({Tenant.policy: "renamed"})
    assert customer.attempt(training_file()) == 1


@pytest.fixture
def amended(settings: GatewaySettings, customer: Customer) -> Iterator[LiveGateway]:
    """The gateway started again after a rejection, with another version of the policy."""
    customer.rejected(training_file())
    assert settings.policy_dir is not None
    policy = (PRESETS / "baseline.yaml").read_text()
    (settings.policy_dir / "baseline.yaml").write_text(policy.replace('version: "', 'version: "9.', 1))
    with run_gateway(settings) as gateway:
        yield gateway


def test_another_version_of_the_policy_counts(amended: LiveGateway, customer: Customer) -> None:
    client = amended.client(customer.client.api_key)
    again = Customer(amended, client, customer.worker)
    job_id = again.queued(training_file())
    assert spec_of(amended.services, job_id).attempt == 2


def test_preferences_are_compared_with_preferences(customer: Customer) -> None:
    method = {"type": "dpo"}
    first = customer.queued(preference_file(range(40)), method=method)
    assert job_row(customer.gateway.services, first).phase == "queued"
    assert customer.attempt(preference_file([*range(4, 40), *range(900, 904)]), method=method) == 2
    assert customer.attempt(preference_file(range(500, 540)), method=method) == 1
