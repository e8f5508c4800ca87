"""Exports of jobs with integrations: what is due, what is tried again, what is given up, and what a tenant is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from botocore.exceptions import EndpointConnectionError
from openai import OpenAI
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from gateway.errors import ExportFailed
from gateway.fine_tuning.exporting import (
    EXPORT_SECONDS,
    FIRST_PAUSE_SECONDS,
    LAST_FAILURE_SECONDS,
    LEASE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MAX_EVENTS,
    MAX_FAILURES,
    MAX_FIGURES,
    UNCHANGED_SECONDS,
    export_due,
)
from gateway.settings import GatewaySettings
from gateway.tables.integrations import MetricsExport
from gateway.tables.jobs import JobEvent
from policies.contract.metrics_export import ExportOrder
from policies.contract.worker_api import Claim, Outcome, WorkerEvent
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import HandWorker, evaluate, submit, submit_queued, train

KEY = "0123456789abcdef0123456789abcdef01234567"
ASKED = [{"type": "wandb", "wandb": {"project": "kittens", "entity": "acme-ml", "tags": ["a"]}}]


class Tracker:
    """Takes what it is given, or fails as it is told."""

    def __init__(self) -> None:
        self.orders: list[ExportOrder] = []
        self.secrets: list[Mapping[str, str]] = []
        self.error: Exception | None = None

    def __call__(self, order: ExportOrder, secrets: Mapping[str, str]) -> None:
        self.orders.append(order)
        self.secrets.append(secrets)
        if self.error is not None:
            raise self.error


@pytest.fixture
def tracker() -> Tracker:
    return Tracker()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    keys = tmp_path / "keys"
    keys.mkdir()
    for tenant in ("acme", "other"):
        (keys / tenant).write_text(f"{KEY}\n")
    return gateway_settings(tmp_path, database_url=database_url, integration_sink="wandb", integration_keys=str(keys))


@pytest.fixture
def other(live_gateway: LiveGateway) -> OpenAI:
    """The client of another tenant."""
    return live_gateway.client(live_gateway.tenant_key("other"))


@pytest.fixture
def claim(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> Claim:
    """Of a job with an integration that a trainer has begun with."""
    return begin(live_gateway, client, worker)


@pytest.fixture
def asked(claim: Claim) -> str:
    return claim.spec.job_id


@pytest.fixture
def due(live_gateway: LiveGateway, asked: str) -> Callable[[], float | None]:
    """Seconds until the job is exported again."""

    def seconds() -> float | None:
        with live_gateway.services.database.reading() as session:
            at = session.get_one(MetricsExport, asked).due_at
        return None if at is None else at - live_gateway.clock()

    return seconds


def begin(gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> Claim:
    return worker.must_claim(submit_queued(gateway, client, integrations=ASKED))


def row_of(gateway: LiveGateway, job_id: str) -> MetricsExport | None:
    with gateway.services.database.reading() as session:
        return session.get(MetricsExport, job_id)


def metrics(*steps: int) -> list[WorkerEvent]:
    return [
        WorkerEvent(type="metrics", message=f"Step {step}", data={"step": step, "train_loss": 1 / step})
        for step in steps
    ]


def warnings(client: OpenAI, job_id: str) -> list[dict[str, object]]:
    """Data of the job's warnings, oldest first."""
    events = [each for each in client.fine_tuning.jobs.list_events(job_id, limit=100) if each.level == "warn"]
    return [dict(each.data) for each in reversed(events) if isinstance(each.data, dict)]


def test_a_running_job_is_exported_again_and_again_until_its_verdict(
    live_gateway: LiveGateway, worker: HandWorker, tracker: Tracker, claim: Claim, due: Callable[[], float | None]
) -> None:
    services = live_gateway.services
    worker.send_events(claim.attempt_token, *metrics(1, 2, 3)).raise_for_status()
    assert export_due(services, export=tracker) == 1
    assert export_due(services, export=tracker) == 0
    assert (due() or 0) >= EXPORT_SECONDS
    live_gateway.clock.advance(10 * EXPORT_SECONDS)
    worker.send_events(claim.attempt_token, *metrics(4)).raise_for_status()
    assert export_due(services, export=tracker) == 1
    first, second = tracker.orders
    assert [point.step for point in first.run.points] == [1, 2]
    assert [point.step for point in second.run.points] == [1, 2, 3]
    assert first.run.state == "running"
    assert (first.sink, first.destinations[0].project, first.destinations[0].entity) == ("wandb", "kittens", "acme-ml")
    assert tracker.secrets[0] == {"WANDB_API_KEY": KEY}


def test_a_job_of_which_nothing_new_was_said_is_looked_at_more_rarely_and_not_exported(
    live_gateway: LiveGateway, tracker: Tracker, asked: str, due: Callable[[], float | None]
) -> None:
    for _ in range(3):
        assert export_due(live_gateway.services, export=tracker) == 1
        live_gateway.clock.advance(UNCHANGED_SECONDS)
    assert len(tracker.orders) == 1
    export_due(live_gateway.services, export=tracker)
    assert (due() or 0) >= UNCHANGED_SECONDS


def test_the_last_export_has_the_verdict(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, tracker: Tracker
) -> None:
    job_id = submit_queued(live_gateway, client, integrations=ASKED)
    train(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id, drift=0.5)
    assert export_due(live_gateway.services, export=tracker) == 1
    (order,) = tracker.orders
    assert (order.run.state, order.run.verdict["decision"]) == ("failed", "reject")
    assert order.run.evaluation["toxicity.rate"] == pytest.approx(0.6)  # 0.1 of the base, and 0.5 worse
    row = row_of(live_gateway, job_id)
    assert row is not None
    assert row.due_at is None
    live_gateway.clock.advance(1e6)
    assert export_due(live_gateway.services, export=tracker) == 0


def test_a_failure_is_told_once_and_tried_ever_more_rarely_until_it_is_given_up(
    live_gateway: LiveGateway,
    client: OpenAI,
    tracker: Tracker,
    asked: str,
    due: Callable[[], float | None],
    quiet_log: list[structlog.typing.EventDict],
) -> None:
    tracker.error = ExportFailed(f"https://tracker.operator.internal/ does not like {asked}", code="export_timed_out")
    pauses = []
    while (seconds := due()) is not None:
        live_gateway.clock.advance(max(0.0, seconds))
        assert export_due(live_gateway.services, export=tracker) == 1
        pauses.append(due())
    assert len(pauses) == MAX_FAILURES
    assert pauses[:3] == pytest.approx([FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS])
    assert pauses[-2] == pytest.approx(LONGEST_PAUSE_SECONDS)
    told = warnings(client, asked)
    assert [(each["code"], each["reason"], each["failures"]) for each in told] == [
        ("integration_failed", "export_timed_out", 1),
        ("integration_failed", "export_timed_out", MAX_FAILURES),
    ]
    events = [each.message for each in client.fine_tuning.jobs.list_events(asked)]
    assert not any("operator.internal" in message for message in events)
    assert sum(entry["event"] == "metrics_export_failed" for entry in quiet_log) == MAX_FAILURES
    assert client.fine_tuning.jobs.retrieve(asked).status == "running"


def test_a_tracker_that_works_again_starts_the_count_anew(
    live_gateway: LiveGateway, client: OpenAI, tracker: Tracker, asked: str, due: Callable[[], float | None]
) -> None:
    tracker.error = ExportFailed("down")
    export_due(live_gateway.services, export=tracker)
    tracker.error = None
    live_gateway.clock.advance(FIRST_PAUSE_SECONDS)
    assert export_due(live_gateway.services, export=tracker) == 1
    assert (due() or 0) >= EXPORT_SECONDS
    assert [each["reason"] for each in warnings(client, asked)] == ["export_failed"]


def test_a_tenant_whose_tracker_fails_waits_with_all_its_jobs_and_holds_up_no_other(
    live_gateway: LiveGateway, client: OpenAI, other: OpenAI, worker: HandWorker
) -> None:
    own = {begin(live_gateway, client, worker).spec.job_id for _ in range(3)}
    others = begin(live_gateway, other, worker).spec.job_id
    seen: list[str] = []

    def export(order: ExportOrder, secrets: Mapping[str, str]) -> None:
        seen.append(order.run.job_id)
        if order.run.job_id in own:
            raise ExportFailed("down")

    assert export_due(live_gateway.services, export=export) == 2
    assert others in seen
    live_gateway.clock.advance(FIRST_PAUSE_SECONDS)
    assert export_due(live_gateway.services, export=export) == 1
    assert len(own & set(seen)) == 2


def test_a_job_whose_own_export_fails_lets_its_tenants_others_be_exported_between_its_tries(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    bad = begin(live_gateway, client, worker).spec.job_id
    live_gateway.clock.advance(1)
    good = begin(live_gateway, client, worker).spec.job_id
    seen: list[str] = []

    def export(order: ExportOrder, secrets: Mapping[str, str]) -> None:
        seen.append(order.run.job_id)
        if order.run.job_id == bad:
            raise ExportFailed("no such project")

    for _ in range(2):
        export_due(live_gateway.services, export=export)
        live_gateway.clock.advance(FIRST_PAUSE_SECONDS)
    assert seen[:2] == [bad, good]


def test_tenants_take_turns_however_many_jobs_one_has(
    live_gateway: LiveGateway, client: OpenAI, other: OpenAI, worker: HandWorker
) -> None:
    tenants = {}
    for tenant in (client, client, client, client, other, other):
        tenants[begin(live_gateway, tenant, worker).spec.job_id] = "other" if tenant is other else "acme"
        live_gateway.clock.advance(1)
    order: list[str] = []

    def export(asked: ExportOrder, secrets: Mapping[str, str]) -> None:
        order.append(tenants[asked.run.job_id])
        live_gateway.clock.advance(1)

    assert export_due(live_gateway.services, export=export) == len(tenants)
    assert sorted(order[:2]) == sorted(order[2:4]) == ["acme", "other"]


def test_a_job_that_no_worker_has_begun_with_is_not_exported(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, tracker: Tracker
) -> None:
    job_id = submit_queued(live_gateway, client, integrations=ASKED)
    assert export_due(live_gateway.services, export=tracker) == 0
    worker.must_claim(job_id)
    assert export_due(live_gateway.services, export=tracker) == 1


def test_a_job_that_is_cancelled_before_its_training_leaves_the_queue(
    live_gateway: LiveGateway, client: OpenAI, tracker: Tracker
) -> None:
    cancelled = [submit(client, integrations=ASKED).id, submit_queued(live_gateway, client, integrations=ASKED)]
    for job_id in cancelled:
        client.fine_tuning.jobs.cancel(job_id)
    assert export_due(live_gateway.services, export=tracker) == 0
    assert [row_of(live_gateway, job_id) for job_id in cancelled] == [None, None]
    assert tracker.orders == []


def test_a_job_that_is_cancelled_while_it_trains_is_exported_to_its_end(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, tracker: Tracker, claim: Claim
) -> None:
    client.fine_tuning.jobs.cancel(claim.spec.job_id)
    worker.end(claim.attempt_token, Outcome.YIELDED)
    assert export_due(live_gateway.services, export=tracker) == 1
    assert tracker.orders[0].run.state == "cancelled"


def test_a_failure_a_day_after_the_jobs_end_is_the_last(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, tracker: Tracker, claim: Claim
) -> None:
    worker.end(claim.attempt_token, Outcome.FAILED, error_code="training_failed", error_message="non-finite loss")
    live_gateway.clock.advance(LAST_FAILURE_SECONDS + 1)
    tracker.error = ExportFailed("down")
    export_due(live_gateway.services, export=tracker)
    row = row_of(live_gateway, claim.spec.job_id)
    assert row is not None
    assert (row.failures, row.due_at) == (1, None)


@pytest.mark.parametrize("error", [RuntimeError("a fault"), MemoryError(), RecursionError()])
def test_whatever_one_job_fails_with_the_next_is_exported(
    live_gateway: LiveGateway,
    other: OpenAI,
    worker: HandWorker,
    asked: str,
    error: Exception,
    quiet_log: list[structlog.typing.EventDict],
) -> None:
    others = begin(live_gateway, other, worker).spec.job_id
    seen: list[str] = []

    def export(order: ExportOrder, secrets: Mapping[str, str]) -> None:
        seen.append(order.run.job_id)
        if order.run.job_id == asked:
            raise error

    assert export_due(live_gateway.services, export=export) == 2
    assert set(seen) == {asked, others}
    row = row_of(live_gateway, asked)
    assert row is not None
    assert (row.failures, row.error_code) == (1, "export_failed")
    (entry,) = [entry for entry in quiet_log if entry["event"] == "metrics_export_failed"]
    assert entry["exc_info"] is error


def test_a_store_that_is_away_is_a_failure_like_others(
    live_gateway: LiveGateway, client: OpenAI, tracker: Tracker, asked: str, due: Callable[[], float | None]
) -> None:
    """The job's report or its events' record could not be read."""
    error = EndpointConnectionError(endpoint_url="http://store.operator.internal")
    tracker.error = error
    settings = live_gateway.services.settings.model_copy(update={"store_url": "s3://bucket/artifacts"})
    export_due(replace(live_gateway.services, settings=settings), export=tracker)
    assert due() == pytest.approx(FIRST_PAUSE_SECONDS, abs=FIRST_PAUSE_SECONDS)
    assert [each["reason"] for each in warnings(client, asked)] == ["storage_unavailable"]
    events = [each.message for each in client.fine_tuning.jobs.list_events(asked)]
    assert not any("operator.internal" in message for message in events)


def test_a_database_that_was_away_for_a_moment_is_a_failure_like_others(
    live_gateway: LiveGateway, tracker: Tracker, asked: str
) -> None:
    tracker.error = OperationalError("SELECT", None, Exception("server closed the connection"))
    assert export_due(live_gateway.services, export=tracker) == 1
    row = row_of(live_gateway, asked)
    assert row is not None
    assert row.error_code == "database_unavailable"


def test_two_exporters_never_have_the_same_job(live_gateway: LiveGateway, asked: str) -> None:
    """The second looks while the first is at it."""
    counts: list[int] = []

    def export(order: ExportOrder, secrets: Mapping[str, str]) -> None:
        def look() -> None:
            counts.append(export_due(live_gateway.services, export=export))

        other = threading.Thread(target=look)
        other.start()
        other.join()

    counts.append(export_due(live_gateway.services, export=export))
    assert counts == [0, 1]


def test_an_exporter_that_died_leaves_its_job_to_another(
    live_gateway: LiveGateway, tracker: Tracker, asked: str
) -> None:
    class Killed(BaseException):
        pass

    def export(order: ExportOrder, secrets: Mapping[str, str]) -> None:
        raise Killed

    with pytest.raises(Killed):
        export_due(live_gateway.services, export=export)
    assert export_due(live_gateway.services, export=tracker) == 0
    live_gateway.clock.advance(LEASE_SECONDS)
    assert export_due(live_gateway.services, export=tracker) == 1


def test_a_key_that_was_taken_away_is_a_failure(
    live_gateway: LiveGateway, client: OpenAI, tracker: Tracker, asked: str
) -> None:
    keys = live_gateway.services.settings.integration_keys
    assert keys is not None
    (keys / "acme").unlink()
    export_due(live_gateway.services, export=tracker)
    assert tracker.orders == []
    assert [each["reason"] for each in warnings(client, asked)] == ["integration_not_connected"]


def test_a_job_with_more_events_than_an_exporter_holds_is_refused(
    live_gateway: LiveGateway, tracker: Tracker, asked: str
) -> None:
    line = {"job_id": asked, "created_at": 1, "level": "info", "message": "m", "type": "message"}
    with live_gateway.services.database.transaction() as session:
        session.execute(insert(JobEvent), [{"id": f"ftevent-{n}", **line} for n in range(MAX_EVENTS + 1)])
    export_due(live_gateway.services, export=tracker)
    assert tracker.orders == []
    with live_gateway.services.database.reading() as session:
        assert session.get_one(MetricsExport, asked).error_code == "export_too_large"


def test_a_job_with_more_figures_than_an_exporter_holds_is_refused(
    live_gateway: LiveGateway, tracker: Tracker, asked: str
) -> None:
    n_events = 50
    names = {f"figure-{n}": n for n in range(MAX_FIGURES // n_events)}
    line = {"job_id": asked, "created_at": 1, "level": "info", "message": "m", "type": "metrics"}
    with live_gateway.services.database.transaction() as session:
        rows = [{"id": f"ftevent-{n}", **line, "data": {"step": n, **names}} for n in range(n_events)]
        session.execute(insert(JobEvent), rows)
    export_due(live_gateway.services, export=tracker)
    assert tracker.orders == []
    row = row_of(live_gateway, asked)
    assert row is not None
    assert row.error_code == "export_too_large"


def test_a_job_without_integrations_is_never_exported(
    live_gateway: LiveGateway, client: OpenAI, tracker: Tracker
) -> None:
    submit_queued(live_gateway, client)
    assert export_due(live_gateway.services, export=tracker) == 0
