"""Tenants take turns in validation, one's files never hold up another's, and a validator that is gone is replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from openai import OpenAI

from gateway.files.dataset.errors import InspectionCrashed, InspectionGivenUp, InspectionTooLarge, InspectionTooSlow
from gateway.files.dataset.inspection import InspectionAnswer, InspectionTask
from gateway.files.dataset.sandbox import GoOn, Source
from gateway.jobs.validation_queue import validate_waiting
from gateway.tables.jobs import Job
from policies.errors import TunegateError
from tests.gateway.conftest import LiveGateway, chat_jsonl
from tests.gateway.hand_worker import (
    error_code,
    inspect_here,
    job_row,
    submit,
    upload,
    validate_here,
    validate_job_files,
)

Meanwhile = Callable[[GoOn], object]


def phase(gateway: LiveGateway, job_id: str) -> str:
    return job_row(gateway.services, job_id).phase


class SlowReader:
    """Reads files as it should, and lets something happen while it reads the first one."""

    def __init__(self, meanwhile: Meanwhile) -> None:
        self._meanwhile: Meanwhile | None = meanwhile

    def __call__(self, task: InspectionTask, sources: Sequence[Source], go_on: GoOn) -> InspectionAnswer:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile(go_on)
        if not go_on():
            raise InspectionGivenUp("not wanted")
        return inspect_here(task, sources, go_on)


class FailingReader:
    def __init__(self, error: TunegateError) -> None:
        self.error = error

    def __call__(self, task: InspectionTask, sources: Sequence[Source], go_on: GoOn) -> InspectionAnswer:
        raise self.error


@pytest.fixture
def other(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key("other"))


def validated_order(gateway: LiveGateway, jobs: Sequence[str]) -> list[str]:
    """The jobs in the order in which a single validator takes them up."""
    order: list[str] = []

    def read(task: InspectionTask, sources: Sequence[Source], go_on: GoOn) -> InspectionAnswer:
        with gateway.services.database.transaction() as session:
            (taken,) = [each for each in jobs if session.get_one(Job, each).lease_until is not None]
        order.append(taken)
        gateway.clock.advance(1)
        return inspect_here(task, sources, go_on)

    assert validate_waiting(gateway.services, inspect=read) == len(jobs)
    return order


def test_tenants_take_turns_however_many_jobs_one_has(live_gateway: LiveGateway, client: OpenAI, other: OpenAI) -> None:
    many = []
    for _ in range(4):
        many.append(submit(client).id)
        live_gateway.clock.advance(10)
    few = [submit(other).id for _ in range(2)]
    order = validated_order(live_gateway, [*many, *few])
    is_few = [job_id in few for job_id in order]
    assert is_few in ([False, True, False, True, False, False], [True, False, True, False, False, False])
    assert [job_id for job_id in order if job_id in many] == many


def test_small_job_of_another_tenant_does_not_wait_for_a_large_one(
    live_gateway: LiveGateway, client: OpenAI, other: OpenAI
) -> None:
    """Two large files of one tenant, and two validators: the second one is the other tenant's."""
    large = [submit(client).id for _ in range(2)]
    services = live_gateway.services

    def second_validator(_: GoOn) -> None:
        assert validate_waiting(services, inspect=inspect_here) == 0
        small = submit(other).id
        assert validate_waiting(services, inspect=inspect_here) == 1
        assert phase(live_gateway, small) == "queued"
        assert [phase(live_gateway, job_id) for job_id in large] == ["validating"] * 2

    assert validate_waiting(services, inspect=SlowReader(second_validator)) == 2
    assert [phase(live_gateway, job_id) for job_id in large] == ["queued"] * 2


def test_job_whose_message_came_at_a_full_share_is_found_afterwards(live_gateway: LiveGateway, client: OpenAI) -> None:
    submit(client)
    late: list[str] = []

    def message_comes(_: GoOn) -> None:
        late.append(submit(client).id)
        assert validate_waiting(live_gateway.services, inspect=inspect_here) == 0

    assert validate_waiting(live_gateway.services, inspect=SlowReader(message_comes)) == 2
    assert phase(live_gateway, late[0]) == "queued"


def test_validator_that_works_keeps_the_job(live_gateway: LiveGateway, client: OpenAI) -> None:
    """For ten times as long as a lease."""
    job_id = submit(client).id

    def work_long(go_on: GoOn) -> None:
        for _ in range(20):
            live_gateway.clock.advance(live_gateway.services.settings.lease_seconds / 2)
            assert go_on()
            assert validate_waiting(live_gateway.services, inspect=inspect_here) == 0

    validate_job_files(live_gateway.services, job_id, inspect=SlowReader(work_long))
    assert (phase(live_gateway, job_id), job_row(live_gateway.services, job_id).attempts) == ("queued", 0)


def test_validator_that_fell_silent_is_replaced_and_told_so(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    answers: list[bool] = []

    def fall_silent(go_on: GoOn) -> None:
        live_gateway.clock.advance(live_gateway.services.settings.lease_seconds + 1)
        validate_here(live_gateway.services, job_id)
        answers.append(go_on())

    validate_job_files(live_gateway.services, job_id, inspect=SlowReader(fall_silent))
    assert answers == [False]
    assert phase(live_gateway, job_id) == "queued"


def test_late_answer_of_a_replaced_validator_is_dropped(live_gateway: LiveGateway, client: OpenAI) -> None:
    """It read other limits, say: what it found must not settle the job that another one is at."""
    job_id = submit(client, training_file=upload(client, chat_jsonl(12))).id
    services = live_gateway.services

    def never_heard_of(task: InspectionTask, sources: Sequence[Source], go_on: GoOn) -> InspectionAnswer:
        live_gateway.clock.advance(live_gateway.services.settings.lease_seconds + 1)
        validate_job_files(services, job_id, inspect=FailingReader(InspectionCrashed("crash")))
        raise InspectionTooSlow("a late answer")

    validate_job_files(services, job_id, inspect=never_heard_of)
    assert phase(live_gateway, job_id) == "validating"
    validate_here(services, job_id)
    assert phase(live_gateway, job_id) == "queued"


def test_cancelled_job_ends_its_validation(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    answers: list[bool] = []

    def cancel(go_on: GoOn) -> None:
        client.fine_tuning.jobs.cancel(job_id)
        answers.append(go_on())

    validate_job_files(live_gateway.services, job_id, inspect=SlowReader(cancel))
    assert answers == [False]
    assert phase(live_gateway, job_id) == "cancelled"


@pytest.mark.parametrize("error", [InspectionTooSlow, InspectionTooLarge])
def test_file_that_takes_too_much_fails_its_job_at_once(
    live_gateway: LiveGateway, client: OpenAI, error: type[TunegateError]
) -> None:
    job_id = submit(client).id
    validate_job_files(live_gateway.services, job_id, inspect=FailingReader(error("It takes too much.")))
    assert error_code(live_gateway.services, job_id) == error.code
    shown = client.fine_tuning.jobs.retrieve(job_id).error
    assert shown is not None
    assert (shown.message, shown.param) == ("It takes too much.", "training_file")


def test_crash_is_tried_again_as_often_as_a_job_has_attempts(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    crash = FailingReader(InspectionCrashed("exit code -11"))
    n = live_gateway.services.settings.max_attempts
    assert validate_waiting(live_gateway.services, inspect=crash) == n
    assert error_code(live_gateway.services, job_id) == "attempts_exhausted"


def test_crash_that_comes_again_is_tried_twice(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    crash = FailingReader(InspectionCrashed("exit code 70", "a" * 64))
    assert validate_waiting(live_gateway.services, inspect=crash) == 2
    assert error_code(live_gateway.services, job_id) == "repeated_failure"


def test_signature_of_a_validation_is_none_of_the_training(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    crash = FailingReader(InspectionCrashed("exit code 70", "a" * 64))
    validate_job_files(live_gateway.services, job_id, inspect=crash)
    assert validate_waiting(live_gateway.services, inspect=inspect_here) == 1
    job = job_row(live_gateway.services, job_id)
    assert (job.phase, job.crash_signature) == ("queued", None)


def test_crash_once_does_no_harm(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    validate_job_files(live_gateway.services, job_id, inspect=FailingReader(InspectionCrashed("exit code -11")))
    assert validate_waiting(live_gateway.services, inspect=inspect_here) == 1
    assert phase(live_gateway, job_id) == "queued"


def test_jobs_are_validated_apart_from_this_process(live_gateway: LiveGateway, client: OpenAI) -> None:
    """With the real reader, and runs of combining marks that took minutes to normalise: each is several tokens."""
    row = b'{"messages": [{"role": "user", "content": "a%s"}, {"role": "assistant", "content": "b%s"}]}\n'
    marks = "\u0301\u0323".encode() * 50_000
    hostile = submit(client, training_file=upload(client, chat_jsonl(12) + row % (marks, marks))).id
    sound = submit(client).id
    assert validate_waiting(live_gateway.services) == 2
    assert [phase(live_gateway, job_id) for job_id in (hostile, sound)] == ["failed", "queued"]
