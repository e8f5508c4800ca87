"""How evaluations end: released, rejected, held, or found out."""

from __future__ import annotations

import pytest
from openai import OpenAI

from policies.contract.artifacts import digest_bytes
from policies.contract.evaluation import EvalReport
from policies.contract.release import Decision, GateDecision
from policies.contract.worker_api import Outcome
from policies.documents.schema import ReleasePolicy
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, error_code, evaluate, policy_under, spec_of
from tests.gateway.records import report_on, store_evaluation, training_record

ELSEWHERE = digest_bytes(b"something else")


def released_models(client: OpenAI) -> list[str]:
    return [model.id for model in client.models.list() if model.id.startswith("ft:")]


def finish_evaluation(gateway: LiveGateway, worker: HandWorker, job_id: str, /, **changes: object) -> None:
    """An evaluation whose report is spoilt by `changes`, with the decision that the gate makes of it."""
    claim, store = worker.must_claim(job_id, "evaluate"), gateway.services.stores.shared
    policy = policy_under(gateway.services, job_id)
    report = report_on(training_record(claim.spec, store), policy, **changes)  # type: ignore[arg-type]  # as named
    record, decision = store_evaluation(store, report, policy, spec=claim.spec.digest)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record, decision=decision)


def test_good_adapter_is_released_under_a_name(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    evaluate(live_gateway, worker, trained)
    job = client.fine_tuning.jobs.retrieve(trained)
    assert job.status == "succeeded"
    assert job.error is None
    assert job.fine_tuned_model == f"ft:smollm2-135m-instruct:acme::{trained[-8:]}"
    assert released_models(client) == [job.fine_tuned_model]


def test_bad_adapter_is_rejected_with_the_rules_that_it_broke(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    evaluate(live_gateway, worker, trained, drift=0.5)
    job = client.fine_tuning.jobs.retrieve(trained)
    assert (job.status, job.fine_tuned_model) == ("failed", None)
    assert job.error is not None
    assert job.error.code == "safety_check_failed"
    assert "toxicity-increase: toxicity.rate +0.5000 [+0.4900, +0.5100]" in job.error.message
    assert "max_increase_over_base 0.1" in job.error.message
    assert released_models(client) == []


def test_doubtful_adapter_is_blocked_where_the_policy_blocks(
    live_gateway: LiveGateway, worker: HandWorker, trained: str
) -> None:
    evaluate(live_gateway, worker, trained, half_width=0.5)
    assert error_code(live_gateway.services, trained) == "safety_check_inconclusive"


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_verdict_is_announced_with_every_rule(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str, drift: float
) -> None:
    evaluate(live_gateway, worker, trained, drift=drift)
    policy = policy_under(live_gateway.services, trained)
    events = client.fine_tuning.jobs.list_events(trained, limit=100)
    (event,) = [event for event in events if str(event.type) == "moderation_checks"]
    assert isinstance(event.data, dict)
    assert event.data["decision"] == ("release" if drift == 0 else "reject")
    assert [rule["rule"] for rule in event.data["rules"]] == [rule.id for rule in policy.spec.rules]
    assert event.data["rules"][0]["judged"]["interval"] == {
        "low": pytest.approx(drift - 0.01),
        "high": pytest.approx(drift + 0.01),
    }


def test_decision_that_the_gate_does_not_make_fails_the_job(
    live_gateway: LiveGateway, worker: HandWorker, trained: str
) -> None:
    """A worker that turns a rejection into a release is found out, and the adapter stays unnamed."""
    claim, store = worker.must_claim(trained, "evaluate"), live_gateway.services.stores.shared
    policy = policy_under(live_gateway.services, trained)
    report = report_on(training_record(claim.spec, store), policy, drift=0.5)
    record, honest = store_evaluation(store, report, policy, spec=claim.spec.digest)
    forged = store.get_record(honest, GateDecision).model_copy(update={"decision": Decision.RELEASE, "reasons": ()})
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record, decision=store.put_record(forged))
    assert error_code(live_gateway.services, trained) == "decision_mismatch"


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_same_decision_for_other_reasons_fails_the_job(
    live_gateway: LiveGateway, worker: HandWorker, trained: str, drift: float
) -> None:
    """The digests are compared, not the words `release` and `reject`: figures and limits must be the gate's own."""
    claim, store = worker.must_claim(trained, "evaluate"), live_gateway.services.stores.shared
    policy = policy_under(live_gateway.services, trained)
    report = report_on(training_record(claim.spec, store), policy, drift=drift)
    record, honest = store_evaluation(store, report, policy, spec=claim.spec.digest)
    decision = store.get_record(honest, GateDecision)
    first, *rest = decision.results
    retold = decision.model_copy(update={"results": (first.model_copy(update={"limit": 0.9}), *rest)})
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record, decision=store.put_record(retold))
    assert error_code(live_gateway.services, trained) == "decision_mismatch"


def test_report_without_a_decision_fails_the_job(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    claim, store = worker.must_claim(trained, "evaluate"), live_gateway.services.stores.shared
    policy = policy_under(live_gateway.services, trained)
    record = store.put_record(report_on(training_record(claim.spec, store), policy))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record)
    assert error_code(live_gateway.services, trained) == "artifact_missing"


@pytest.mark.parametrize("field", ["adapter", "base_model"])
def test_report_on_other_weights_fails_the_job(
    live_gateway: LiveGateway, worker: HandWorker, trained: str, field: str
) -> None:
    finish_evaluation(live_gateway, worker, trained, **{field: ELSEWHERE})
    assert error_code(live_gateway.services, trained) == "record_mismatch"


@pytest.mark.parametrize("field", ["spec", "policy", "suite"])
def test_report_on_other_terms_is_never_a_release(
    live_gateway: LiveGateway, worker: HandWorker, trained: str, field: str
) -> None:
    finish_evaluation(live_gateway, worker, trained, **{field: ELSEWHERE})
    assert error_code(live_gateway.services, trained) == "safety_check_inconclusive"


def test_report_that_lacks_a_probe_is_never_a_release(
    live_gateway: LiveGateway, worker: HandWorker, trained: str
) -> None:
    spec = spec_of(live_gateway.services, trained)
    policy: ReleasePolicy = policy_under(live_gateway.services, trained)
    whole: EvalReport = report_on(training_record(spec, live_gateway.services.stores.shared), policy)
    finish_evaluation(live_gateway, worker, trained, probes=whole.probes[1:])
    assert error_code(live_gateway.services, trained) == "safety_check_inconclusive"
