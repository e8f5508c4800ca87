"""What a verdict leaves behind: the job's columns, the event, and the rows that metrics are computed from."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from openai import OpenAI
from sqlalchemy import select

from gateway.tables.jobs import JobEvent
from gateway.tables.statistics import GateResult, RuleResultRow
from policies.contract.release import GateDecision
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import (
    HandWorker,
    evaluate,
    job_row,
    policy_under,
    spec_of,
    submit_queued,
    train,
)

DECISIONS = [(0.0, 0.01, "release", "info"), (0.5, 0.01, "reject", "error"), (0.0, 0.5, "inconclusive", "warn")]
"""Drift and half-width of the report, what the gate makes of it, and the level of the event."""


def events(gateway: LiveGateway, job_id: str) -> Sequence[JobEvent]:
    with gateway.services.database.transaction() as session:
        return session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence)).all()


@pytest.mark.parametrize(("drift", "half_width", "decision", "level"), DECISIONS)
def test_verdict_is_kept_and_announced(
    live_gateway: LiveGateway,
    worker: HandWorker,
    trained: str,
    *,
    drift: float,
    half_width: float,
    decision: str,
    level: str,
) -> None:
    record, digest = evaluate(live_gateway, worker, trained, drift=drift, half_width=half_width)
    job = job_row(live_gateway.services, trained)
    kept = live_gateway.services.stores.of_job(trained).get_record(digest, GateDecision)

    assert (job.report_digest, job.decision_digest, job.decision) == (record, digest, decision)
    (event,) = [event for event in events(live_gateway, trained) if event.type == "moderation_checks"]
    assert event.level == level
    assert event.message == f"Safety check: {decision}. {' '.join(kept.reasons)}".strip()
    assert event.created_at == int(live_gateway.clock())
    assert event.data == {
        "decision": decision,
        "policy": kept.policy,
        "report": record,
        "reasons": list(kept.reasons),
        "rules": [result.model_dump(mode="json") for result in kept.results],
    }


@pytest.mark.parametrize(("drift", "half_width", "decision", "level"), DECISIONS)
def test_verdict_is_counted(
    live_gateway: LiveGateway,
    worker: HandWorker,
    trained: str,
    *,
    drift: float,
    half_width: float,
    decision: str,
    level: str,
) -> None:
    _, digest = evaluate(live_gateway, worker, trained, drift=drift, half_width=half_width)
    kept = live_gateway.services.stores.of_job(trained).get_record(digest, GateDecision)
    policy = policy_under(live_gateway.services, trained)
    with live_gateway.services.database.transaction() as session:
        (gate,) = session.scalars(select(GateResult))
        assert (gate.job_id, gate.policy, gate.mode) == (trained, policy.metadata.name, policy.spec.mode)
        assert (gate.decision, gate.at) == (decision, live_gateway.clock())
        rows = session.scalars(select(RuleResultRow).order_by(RuleResultRow.id)).all()
        found = [
            (
                row.gate_result_id,
                row.policy,
                row.rule,
                row.mode,
                row.outcome,
                row.metric,
                row.base_model,
                row.adapter_value,
            )
            for row in rows
        ]
    assert found == [
        (
            gate.id,
            "baseline",
            result.rule,
            result.mode,
            result.outcome,
            result.metric,
            "smollm2-135m-instruct",
            result.adapter and result.adapter.value,
        )
        for result in kept.results
    ]
    assert len(found) >= 3


def test_release_is_told_with_its_name(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    evaluate(live_gateway, worker, trained)
    name = job_row(live_gateway.services, trained).fine_tuned_model

    told = [(event.level, event.message, event.created_at) for event in events(live_gateway, trained)][-2:]
    assert told == [
        ("info", f"New fine-tuned model created: {name}", int(live_gateway.clock())),
        ("info", "The job has successfully completed", int(live_gateway.clock())),
    ]


def test_rejection_ends_the_job_with_all_reasons(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    _, digest = evaluate(live_gateway, worker, trained, drift=0.5)
    job = job_row(live_gateway.services, trained)
    kept = live_gateway.services.stores.of_job(trained).get_record(digest, GateDecision)

    assert (job.phase, job.error_code, job.error_param) == ("rejected", "safety_check_failed", None)
    assert job.error_message == f"The safety check failed. {' '.join(kept.reasons)}"
    assert (job.phase_since, job.finished_at) == (live_gateway.clock(), int(live_gateway.clock()))


def test_doubt_fails_the_job_with_all_reasons(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    _, digest = evaluate(live_gateway, worker, trained, half_width=0.5)
    job = job_row(live_gateway.services, trained)
    kept = live_gateway.services.stores.of_job(trained).get_record(digest, GateDecision)

    assert (job.phase, job.error_code) == ("failed", "safety_check_inconclusive")
    assert job.error_message == (f"The safety check could not decide, so nothing is released. {' '.join(kept.reasons)}")
    assert (job.phase_since, job.finished_at) == (live_gateway.clock(), int(live_gateway.clock()))


def test_second_attempt_is_judged_as_one(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> None:
    """The same file after a rejection: the report's intervals are those of attempt 2, and the gateway expects them."""
    first = submit_queued(live_gateway, client)
    train(live_gateway, worker, first)
    evaluate(live_gateway, worker, first, drift=0.5)
    second = submit_queued(live_gateway, client)
    train(live_gateway, worker, second)
    evaluate(live_gateway, worker, second)

    assert spec_of(live_gateway.services, second).attempt == 2
    assert job_row(live_gateway.services, second).phase == "released"
