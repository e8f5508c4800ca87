"""What the files of a job must be like before it may queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.errors import ArtifactMissingError
from tests.gateway.conftest import LiveGateway, chat_jsonl
from tests.gateway.hand_worker import job_row, spec_of, submit, upload, validate_here


def validated(gateway: LiveGateway, client: OpenAI, **fields: object) -> FineTuningJob:
    job_id = submit(client, **fields).id
    validate_here(gateway.services, job_id)
    return client.fine_tuning.jobs.retrieve(job_id)


def rows(first: int, count: int) -> bytes:
    return b"".join(chat_jsonl(first + count).splitlines(keepends=True)[first:])


def test_sound_file_lets_the_job_queue_with_its_figures_resolved(live_gateway: LiveGateway, client: OpenAI) -> None:
    """12 rows: `auto` is 3 epochs at most, batches of 4 below 64 rows, multiplier 1."""
    job = validated(live_gateway, client)
    assert job.status == "queued"
    shown = job.hyperparameters
    assert (shown.n_epochs, shown.batch_size, shown.learning_rate_multiplier) == (3, 4, 1.0)


def test_spec_is_not_touched_by_resolving(live_gateway: LiveGateway, client: OpenAI) -> None:
    job = job_row(live_gateway.services, validated(live_gateway, client).id)
    assert job.spec["hyperparameters"]["n_epochs"] == "auto"


class CountingStore(ArtifactStore):
    """A real store that remembers what was opened."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.opened: list[Digest] = []

    @contextmanager
    def open(self, digest: Digest) -> Iterator[IO[bytes]]:
        self.opened.append(digest)
        with super().open(digest) as stream:
            yield stream


def test_each_file_is_read_once(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client, validation_file=upload(client, rows(12, 12))).id
    stores = ArtifactStores(live_gateway.services.stores.shared.url)
    stores.files = store = CountingStore(stores.files.url)
    validate_here(replace(live_gateway.services, stores=stores), job_id)
    spec = spec_of(live_gateway.services, job_id)
    assert job_row(live_gateway.services, job_id).phase == "queued"
    assert spec.validation_file is not None
    assert [store.opened.count(file) for file in (spec.training_file, spec.validation_file)] == [1, 1]


def test_errors_fail_the_job_with_line_numbers(live_gateway: LiveGateway, client: OpenAI) -> None:
    content = chat_jsonl(12) + b'{"messages": []}\nnot json\n'
    job = validated(live_gateway, client, training_file=upload(client, content))
    assert (job.status, job.trained_tokens) == ("failed", None)
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert "line 13" in job.error.message
    assert "line 14" in job.error.message


def test_every_error_is_an_event(live_gateway: LiveGateway, client: OpenAI) -> None:
    content = chat_jsonl(12) + b"not json\n" * 5
    job = validated(live_gateway, client, training_file=upload(client, content))
    events = client.fine_tuning.jobs.list_events(job.id, limit=100)
    lines = [event.data["line"] for event in events if isinstance(event.data, dict) and "line" in event.data]
    assert lines == [17, 16, 15, 14, 13]
    assert job.error is not None
    assert "and 2 more" in job.error.message


def test_too_few_rows_fail_the_job(live_gateway: LiveGateway, client: OpenAI) -> None:
    job = validated(live_gateway, client, training_file=upload(client, chat_jsonl(9)))
    assert job.error is not None
    assert "too_few_rows" in job.error.message


def test_validation_file_may_be_short_but_not_wrong(live_gateway: LiveGateway, client: OpenAI) -> None:
    held_out = upload(client, rows(12, 1))
    assert validated(live_gateway, client, validation_file=held_out).status == "queued"
    job = validated(live_gateway, client, validation_file=upload(client, b"{}\n"))
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_validation_file", "validation_file")


def test_row_that_is_trained_on_cannot_validate(live_gateway: LiveGateway, client: OpenAI) -> None:
    """Line 2 of the validation file is row 11 of training, written with other spaces."""
    held_out = rows(12, 1) + rows(11, 1).replace(b": ", b":  ")
    job = validated(live_gateway, client, validation_file=upload(client, held_out))
    assert job.error is not None
    assert job.error.code == "invalid_validation_file"
    assert "1 rows are in the training file as well, in lines 2" in job.error.message


def test_questions_that_are_trained_on_are_warned_of_whatever_their_blanks_and_case(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    """Line 2 asks what row 11 of training asks, and has another answer."""
    asked_again = rows(11, 1).replace(b"What is", b"WHAT  IS").replace(b"It is", b"Perhaps")
    job = validated(live_gateway, client, validation_file=upload(client, rows(12, 1) + asked_again))
    assert job.status == "queued"
    told = [event.message for event in client.fine_tuning.jobs.list_events(job.id) if event.level == "warn"]
    assert told == [
        "line 2: messages: 1 rows of the validation file, line 2 the first, ask what the training file asks, but for "
        "blanks and case (question_trained); hold out other questions: the validation loss is too low with these"
    ]


def test_warnings_become_events_and_stop_nothing(live_gateway: LiveGateway, client: OpenAI) -> None:
    content = chat_jsonl(12).replace(b"\n", b"\r\n")
    job = validated(live_gateway, client, training_file=upload(client, content))
    assert job.status == "queued"
    assert [event.level for event in client.fine_tuning.jobs.list_events(job.id)].count("warn") == 1


def test_second_validation_does_nothing(live_gateway: LiveGateway, client: OpenAI) -> None:
    job = validated(live_gateway, client)
    before = len(list(client.fine_tuning.jobs.list_events(job.id)))
    validate_here(live_gateway.services, job.id)
    assert len(list(client.fine_tuning.jobs.list_events(job.id))) == before


def test_validation_of_a_job_that_is_gone_does_nothing(live_gateway: LiveGateway) -> None:
    validate_here(live_gateway.services, "ftjob-nothing")


def test_cancelled_job_is_not_validated(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    client.fine_tuning.jobs.cancel(job_id)
    validate_here(live_gateway.services, job_id)
    assert client.fine_tuning.jobs.retrieve(job_id).status == "cancelled"


def break_validation(gateway: LiveGateway, job_id: str) -> None:
    """A validator that dies half-way: the bytes of the file are not to be had."""
    with gateway.services.database.transaction() as session:
        digest = session.get_one(Job, job_id).spec["training_file"]
    content = gateway.services.stores.files.read_bytes(digest)
    gateway.services.stores.files.delete(digest)
    with pytest.raises(ArtifactMissingError):
        validate_here(gateway.services, job_id)
    gateway.services.stores.files.put_bytes(content)


def test_validator_that_died_is_waited_for_then_replaced(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    break_validation(live_gateway, job_id)
    validate_here(live_gateway.services, job_id)
    assert job_row(live_gateway.services, job_id).phase == "validating"
    live_gateway.clock.advance(live_gateway.services.settings.lease_seconds + 1)
    validate_here(live_gateway.services, job_id)
    job = job_row(live_gateway.services, job_id)
    assert (job.phase, job.attempts) == ("queued", 0)


def test_file_that_kills_every_validator_fails_the_job(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    for _ in range(live_gateway.services.settings.max_attempts):
        break_validation(live_gateway, job_id)
        live_gateway.clock.advance(live_gateway.services.settings.lease_seconds + 1)
    validate_here(live_gateway.services, job_id)
    assert job_row(live_gateway.services, job_id).error_code == "attempts_exhausted"
