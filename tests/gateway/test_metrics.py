"""What Prometheus is told: from the database, in every process the same, without a label per job."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, select

from gateway.metrics.families import SERIES, JobMetrics
from gateway.metrics.rollups import SETTLED_SECONDS, roll_up
from gateway.tables.statistics import PhaseTransition, RollupMark
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, evaluate, submit, submit_queued, train

DEFENSES = "kl_penalty+safe_data_interleaving"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def worker(live_gateway: LiveGateway) -> Iterator[HandWorker]:
    worker = HandWorker(live_gateway)
    yield worker
    worker.close()


@pytest.fixture
def busy(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> LiveGateway:
    """One job released, one rejected, one training for 7 s, one validating for 9 s."""
    for drift in (0.0, 0.5):
        job_id = submit_queued(live_gateway, client)
        live_gateway.clock.advance(10)
        train(live_gateway, worker, job_id)
        live_gateway.clock.advance(2)
        evaluate(live_gateway, worker, job_id, drift=drift)
    submit(client)
    live_gateway.clock.advance(2)
    running = submit_queued(live_gateway, client)
    worker.must_claim(running)
    assert worker.claim(running) is None
    live_gateway.clock.advance(7)
    return live_gateway


def scrape(gateway: LiveGateway) -> Samples:
    text = gateway.ask_operations("/metrics").raise_for_status().text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, /, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def test_finished_jobs_are_counted_by_public_status_and_defense(busy: LiveGateway) -> None:
    samples = scrape(busy)
    assert value(samples, "tunegate_jobs_total", status="succeeded", defense=DEFENSES) == 1
    assert value(samples, "tunegate_jobs_total", status="failed", defense=DEFENSES) == 1


def test_jobs_by_phase_and_the_age_of_the_oldest(busy: LiveGateway) -> None:
    samples = scrape(busy)
    assert value(samples, "tunegate_jobs_in_phase", phase="training") == 1
    assert value(samples, "tunegate_jobs_in_phase", phase="queued") == 0
    assert value(samples, "tunegate_job_phase_oldest_age_seconds", phase="training") == 7
    assert value(samples, "tunegate_job_phase_oldest_age_seconds", phase="validating") == 9
    assert value(samples, "tunegate_leases") == 1


def test_queue_wait_counts_both_queues(busy: LiveGateway) -> None:
    """Waits: 10 s and 2 s for each of two jobs, 0 s for the third."""
    samples = scrape(busy)
    assert value(samples, "tunegate_job_queue_wait_seconds_count") == 5
    assert value(samples, "tunegate_job_queue_wait_seconds_sum") == 24
    assert value(samples, "tunegate_job_queue_wait_seconds_bucket", le="1.0") == 1
    assert value(samples, "tunegate_job_queue_wait_seconds_bucket", le="5.0") == 3
    assert value(samples, "tunegate_job_queue_wait_seconds_bucket", le="15.0") == 5


def test_phase_durations_are_a_histogram_per_phase(busy: LiveGateway) -> None:
    samples = scrape(busy)
    assert value(samples, "tunegate_job_phase_duration_seconds_count", phase="queued") == 3
    assert value(samples, "tunegate_job_phase_duration_seconds_sum", phase="queued") == 20


def test_verdicts_are_counted_by_decision_and_rule(busy: LiveGateway) -> None:
    samples = scrape(busy)
    for decision in ("release", "reject"):
        labels = {"decision": decision, "policy": "baseline", "mode": "enforce"}
        assert value(samples, "tunegate_gate_decisions_total", **labels) == 1
    for result in ("pass", "fail"):
        labels = {"policy": "baseline", "rule": "toxicity-increase", "mode": "enforce", "result": result}
        assert value(samples, "tunegate_rule_results_total", **labels) == 1


def test_score_is_the_last_one(busy: LiveGateway) -> None:
    """The second job: 0.5 above the base's 0.1."""
    labels = {"metric": "toxicity.rate", "base_model": "smollm2-135m-instruct"}
    assert value(scrape(busy), "tunegate_eval_score", **labels) == pytest.approx(0.6)


def test_deliveries_are_counted(busy: LiveGateway) -> None:
    """Messages: a validation each of four jobs, three trainings, two evaluations; none was sent."""
    samples = scrape(busy)
    assert value(samples, "tunegate_duplicate_deliveries_total", kind="train") == 1
    assert value(samples, "tunegate_outbox_pending") == 9


def test_policies_in_force_are_named(live_gateway: LiveGateway) -> None:
    policy = live_gateway.services.policies.release_policy("baseline")
    labels = {"name": "baseline", "version": policy.metadata.version, "digest": policy.digest}
    assert value(scrape(live_gateway), "tunegate_policy_info", **labels) == 1


def test_empty_gateway_answers_zeros(live_gateway: LiveGateway) -> None:
    samples = scrape(live_gateway)
    assert value(samples, "tunegate_outbox_pending") == 0
    assert value(samples, "tunegate_job_queue_wait_seconds_count") == 0
    assert value(samples, "tunegate_jobs_in_phase", phase="queued") == 0


def test_another_process_counts_the_same(busy: LiveGateway) -> None:
    registry = CollectorRegistry()
    registry.register(JobMetrics(busy.services))
    labels = {"status": "succeeded", "defense": DEFENSES}
    assert registry.get_sample_value("tunegate_jobs_total", labels) == 1


def test_no_label_holds_a_job_or_a_tenant(busy: LiveGateway) -> None:
    for _, labels in scrape(busy):
        assert not any(text.startswith(("ftjob-", "org-", "file-", "attempt_")) for _, text in labels)


def test_requests_are_counted_by_route_template(busy: LiveGateway) -> None:
    httpx.get(f"{busy.url}/v1/fine_tuning/jobs/ftjob-1")
    httpx.get(f"{busy.url}/wp-login.php")
    samples = scrape(busy)
    unauthorized = {"route": "/v1/fine_tuning/jobs/{job_id}", "method": "GET", "status": "4xx"}
    assert value(samples, "tunegate_http_requests_total", **unauthorized) == 1
    assert value(samples, "tunegate_http_requests_total", route="unmatched", method="GET", status="4xx") == 1
    claims = {"route": "/internal/v1/claims", "method": "POST"}
    assert value(samples, "tunegate_http_request_duration_seconds_count", **claims) == 6


def test_openmetrics_is_well_formed(busy: LiveGateway) -> None:
    """What Prometheus asks for by default; it allows no two families of one name."""
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    text = busy.ask_operations("/metrics", **accept).text
    names = [family.name for family in parse_openmetrics(text)]
    assert len(names) == len(set(names))
    assert "tunegate_jobs" in names


def test_a_scrape_is_the_same_however_much_is_rolled_up(busy: LiveGateway, worker: HandWorker, client: OpenAI) -> None:
    before = scrape(busy)
    for _ in range(3):
        roll_up(busy.services, SERIES)
        busy.clock.advance(SETTLED_SECONDS + 1)
        assert without_ages(scrape(busy)) == without_ages(before)
    job_id = submit_queued(busy, client)
    train(busy, worker, job_id)
    evaluate(busy, worker, job_id)
    after = scrape(busy)
    assert value(after, "tunegate_jobs_total", status="succeeded", defense=DEFENSES) == 2
    labels = {"metric": "toxicity.rate", "base_model": "smollm2-135m-instruct"}
    assert value(after, "tunegate_eval_score", **labels) == pytest.approx(0.1)
    roll_up(busy.services, SERIES)
    busy.clock.advance(SETTLED_SECONDS + 1)
    roll_up(busy.services, SERIES)
    assert without_ages(scrape(busy)) == without_ages(after)


def test_what_is_rolled_up_is_not_read_again(busy: LiveGateway) -> None:
    """Rows may even be pruned then: the scrape stands on the rollup."""
    before = scrape(busy)
    roll_up(busy.services, SERIES)
    busy.clock.advance(SETTLED_SECONDS + 1)
    roll_up(busy.services, SERIES)
    with busy.services.database.transaction() as session:
        session.execute(delete(PhaseTransition))
    assert without_ages(scrape(busy)) == without_ages(before)


def test_a_mark_moves_only_over_what_has_settled(busy: LiveGateway) -> None:
    """A second round that comes too early, e.g. of another process, moves nothing."""
    roll_up(busy.services, SERIES)
    roll_up(busy.services, SERIES)
    with busy.services.database.transaction() as session:
        marks = session.scalars(select(RollupMark)).all()
        assert len(marks) == len(SERIES)
        assert {mark.upto for mark in marks} == {0}


def without_ages(samples: Samples) -> Samples:
    """Without what passes with time or with the scrapes themselves."""
    passing = ("age_seconds", "http_", "leases", "free_bytes")
    return {key: figure for key, figure in samples.items() if not any(name in key[0] for name in passing)}
