"""A policy with `evaluators: 2`: what one evaluator alone says never releases an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI
from pydantic import SecretStr

from gateway.app import create_app
from gateway.jobs.retention import sweep_due_jobs
from gateway.jobs.states import public_status
from gateway.models.confirmation import second_evaluation
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job, SecondEvaluation
from gateway.tables.models import Model
from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport
from policies.contract.release import AdapterManifest, Confirmation, GateDecision
from policies.contract.tasks import CLAIMS_PATH
from policies.contract.worker_api import ClaimRequest, Outcome, WorkKind
from policies.errors import ConfigurationError
from tests.gateway.conftest import WORKER_TOKENS, LiveGateway, gateway_settings, run_gateway
from tests.gateway.hand_worker import HandWorker, error_code, evaluate, job_row, policy_under, submit_queued, train
from tests.gateway.policy_variants import variant_of_baseline
from tests.gateway.records import report_on, store_evaluation, training_record

YEARS_SECONDS = 10 * 365 * 86400.0


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    variant_of_baseline(tmp_path, "twice", evaluators=2)
    folder = variant_of_baseline(tmp_path, "twice-reviewed", evaluators=2, on_inconclusive="review")
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def live_gateway(settings: GatewaySettings) -> Iterator[LiveGateway]:
    with run_gateway(settings) as gateway:
        yield gateway


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key(policy="twice"))


@pytest.fixture
def passed(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> str:
    """A job whose first evaluator would release."""
    evaluate(live_gateway, worker, trained)
    return trained


def row_of(gateway: LiveGateway, job_id: str) -> SecondEvaluation:
    with gateway.services.database.transaction() as session:
        row = second_evaluation(session, session.get_one(Job, job_id))
        assert row is not None
        return row


def released_models(client: OpenAI) -> list[str]:
    return [model.id for model in client.models.list() if model.id.startswith("ft:")]


def test_what_the_first_would_release_waits_for_the_second(
    live_gateway: LiveGateway, client: OpenAI, passed: str
) -> None:
    job = job_row(live_gateway.services, passed)
    assert (job.phase, job.decision, job.fine_tuned_model) == ("awaiting_confirmation", None, None)
    assert client.fine_tuning.jobs.retrieve(passed).status == "running" == public_status(job.phase)
    assert released_models(client) == []


def test_what_both_would_release_is_released_and_the_manifest_names_both(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, passed: str
) -> None:
    report, decision = evaluate(live_gateway, worker, passed, kind="confirm", half_width=0.02)
    job = job_row(live_gateway.services, passed)
    assert (job.phase, job.decision) == ("released", "release")
    assert released_models(client) == [job.fine_tuned_model]
    with live_gateway.services.database.transaction() as session:
        digest = session.get_one(Model, job.fine_tuned_model).manifest_digest
    manifest = live_gateway.services.stores.of_job(passed).get_record(digest, AdapterManifest)
    assert (manifest.report, manifest.decision) == (job.report_digest, job.decision_digest)
    assert manifest.confirmation == Confirmation(report=report, decision=decision)
    assert report != manifest.report


@pytest.mark.parametrize(("figures", "said"), [({"drift": 0.5}, "reject"), ({"half_width": 0.5}, "inconclusive")])
def test_what_the_second_would_not_release_is_not_released(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, passed: str, figures: dict[str, float], said: str
) -> None:
    evaluate(live_gateway, worker, passed, kind="confirm", **figures)  # type: ignore[arg-type]  # as named
    assert error_code(live_gateway.services, passed) == "evaluators_disagree"
    job = job_row(live_gateway.services, passed)
    assert job.decision == "inconclusive"
    assert f"The first evaluator decided release, the second {said}. " in (job.error_message or "")
    assert "toxicity-increase: toxicity.rate" in (job.error_message or "")
    assert released_models(client) == []


def test_a_rejection_needs_no_second_evaluator(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    evaluate(live_gateway, worker, trained, drift=0.5)
    assert job_row(live_gateway.services, trained).phase == "rejected"
    assert worker.claim(trained, "confirm") is None


def test_the_first_evaluator_does_not_confirm_itself(
    live_gateway: LiveGateway, worker: HandWorker, passed: str
) -> None:
    """With its own credential it claims neither a second evaluation nor another first one."""
    assert worker.claim(passed, "evaluate") is None
    request = ClaimRequest(kind="confirm", job_id=passed, worker="w")
    assert worker.post(CLAIMS_PATH, request, "evaluate").status_code == 403
    assert job_row(live_gateway.services, passed).phase == "awaiting_confirmation"


def test_the_second_evaluator_does_not_go_first(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    assert worker.claim(trained, "confirm") is None
    request = ClaimRequest(kind="evaluate", job_id=trained, worker="w")
    assert worker.post(CLAIMS_PATH, request, "confirm").status_code == 403


def test_a_disagreement_is_for_a_reviewer_where_the_policy_says_so(
    live_gateway: LiveGateway, worker: HandWorker
) -> None:
    client = live_gateway.client(live_gateway.tenant_key("other", policy="twice-reviewed"))
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id, kind="confirm", drift=0.5)
    job = job_row(live_gateway.services, job_id)
    assert (job.phase, job.decision, job.fine_tuned_model) == ("awaiting_review", "inconclusive", None)


def test_a_forged_second_decision_fails_the_job(live_gateway: LiveGateway, worker: HandWorker, passed: str) -> None:
    """A release that does not follow from its own report is found out here, too."""
    claim, store = worker.must_claim(passed, "confirm"), live_gateway.services.stores.of_job(passed)
    policy = policy_under(live_gateway.services, passed)
    bad = report_on(training_record(claim.spec, store), policy, drift=0.5)
    honest = report_on(training_record(claim.spec, store), policy)
    _, good = store_evaluation(store, honest, policy, spec=claim.spec.digest)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(bad), decision=good)
    assert error_code(live_gateway.services, passed) == "decision_mismatch"


@pytest.mark.parametrize("how", ["lease", "pause", "wish"])
def test_an_interrupted_second_evaluation_is_done_again_and_the_first_is_not(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, passed: str, how: str
) -> None:
    if how == "wish":
        client.fine_tuning.jobs.pause(passed)
        client.fine_tuning.jobs.resume(passed)
    else:
        token = worker.must_claim(passed, "confirm").attempt_token
        if how == "pause":
            client.fine_tuning.jobs.pause(passed)
            assert worker.heartbeat(token) == "pause"
        worker.end(token, Outcome.YIELDED)
        if how == "pause":
            client.fine_tuning.jobs.resume(passed)
    assert job_row(live_gateway.services, passed).phase == "awaiting_confirmation"
    assert worker.claim(passed, "evaluate") is None
    evaluate(live_gateway, worker, passed, kind="confirm")
    assert job_row(live_gateway.services, passed).phase == "released"


def test_a_pause_during_the_first_evaluation_holds_the_job_before_the_second(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    claim, store = worker.must_claim(trained, "evaluate"), live_gateway.services.stores.of_job(trained)
    client.fine_tuning.jobs.pause(trained)
    policy = policy_under(live_gateway.services, trained)
    report = report_on(training_record(claim.spec, store), policy)
    record, decision = store_evaluation(store, report, policy, spec=claim.spec.digest)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record, decision=decision)
    assert job_row(live_gateway.services, trained).phase == "paused"
    client.fine_tuning.jobs.resume(trained)
    evaluate(live_gateway, worker, trained, kind="confirm")
    assert job_row(live_gateway.services, trained).phase == "released"


def test_both_checks_are_announced_and_reported(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, passed: str
) -> None:
    path = f"/guardrail/jobs/{passed}/report"
    with pytest.raises(NotFoundError):
        client.get(path, cast_to=dict[str, object])
    _, decision = evaluate(live_gateway, worker, passed, kind="confirm", drift=0.5)
    events = client.fine_tuning.jobs.list_events(passed, limit=100)
    told = [event.message.split(":")[0] for event in events if str(event.type) == "moderation_checks"]
    assert told == ["Second safety check", "Safety check"]
    report = client.get(path, cast_to=dict[str, object])
    assert report["decision"] == "inconclusive"
    second = report["second"]
    assert isinstance(second, dict)
    assert (second["decision"], second["gate_decision"]) == ("reject", decision)


def test_outcomes_are_counted(live_gateway: LiveGateway, worker: HandWorker, passed: str) -> None:
    evaluate(live_gateway, worker, passed, kind="confirm", drift=0.5)
    scraped = live_gateway.ask_operations("/metrics", accept="text/plain").text
    assert 'tunegate_second_evaluations_total{outcome="disagreed",policy="twice"} 1.0' in scraped


def test_records_of_both_evaluations_are_kept_and_their_samples_are_not(
    live_gateway: LiveGateway, worker: HandWorker, passed: str
) -> None:
    store = live_gateway.services.stores.of_job(passed)
    samples: Digest = store.put_bytes(b"what the second evaluator read")
    evaluate(live_gateway, worker, passed, kind="confirm", samples=samples)
    live_gateway.clock.advance(3601)
    sweep_due_jobs(live_gateway.services)
    assert store.exists(samples)
    live_gateway.clock.advance(YEARS_SECONDS)
    sweep_due_jobs(live_gateway.services)
    row = row_of(live_gateway, passed)
    assert not store.exists(samples)
    store.get_record(row.report_digest, EvalReport)
    store.get_record(row.decision_digest, GateDecision)


@pytest.mark.parametrize("column", ["report_digest", "decision_digest"])
def test_a_second_record_that_is_gone_releases_nothing(
    live_gateway: LiveGateway, worker: HandWorker, passed: str, column: str
) -> None:
    claim, store = worker.must_claim(passed, "confirm"), live_gateway.services.stores.of_job(passed)
    policy = policy_under(live_gateway.services, passed)
    report = report_on(training_record(claim.spec, store), policy, half_width=0.02)
    record, decision = store_evaluation(store, report, policy, spec=claim.spec.digest)
    store.delete(record if column == "report_digest" else decision)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record, decision=decision)
    assert error_code(live_gateway.services, passed) == "artifact_missing"


def test_a_gateway_without_second_evaluators_refuses_the_policy(settings: GatewaySettings) -> None:
    with pytest.raises(ConfigurationError, match=r"policy twice.* needs TUNEGATE_CONFIRMER_TOKEN"):
        create_app(settings.model_copy(update={"confirmer_token": None}))


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_second_evaluators_need_a_token_of_their_own(tmp_path: Path, kind: WorkKind) -> None:
    with pytest.raises(ValueError, match="different tokens"):
        gateway_settings(tmp_path, confirmer_token=SecretStr(WORKER_TOKENS[kind]))
