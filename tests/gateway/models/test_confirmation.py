"""What a second evaluation must be about, to confirm a release."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from gateway.dependencies import Services
from gateway.models.confirmation import disagreement, require_confirmation
from gateway.tables.jobs import Job, SecondEvaluation
from policies.contract.artifacts import digest_bytes
from policies.contract.evaluation import EvalReport
from policies.contract.release import Confirmation, Decision, GateDecision
from policies.errors import IntegrityError

if TYPE_CHECKING:
    from tests.gateway.models.conftest import Case

OTHER = digest_bytes(b"something else")
MakeCase = Callable[..., "Case"]


def confirm(services: Services, case: Case, report: EvalReport, decision: GateDecision) -> Confirmation:
    """What the release is told where these are the second evaluation."""
    store = services.stores.of_job(case.job.id)
    with services.database.transaction() as session:
        job = session.get_one(Job, case.job.id)
        row = SecondEvaluation(job_id=job.id, policy="baseline", outcome="agreed", at=1.0)
        row.report_digest, row.decision_digest = store.put_record(report), store.put_record(decision)
        session.add(row)
        session.flush()
        return require_confirmation(session, store, job=job, first=case.decision)


def test_an_equal_second_evaluation_confirms(services: Services, passed: MakeCase) -> None:
    case = passed()
    report = case.report.model_copy(update={"seconds": 99.0})
    decision = case.decision.model_copy(update={"report": report.digest})
    found = confirm(services, case, report, decision)
    assert found == Confirmation(report=report.digest, decision=decision.digest)


def test_without_a_second_evaluation_nothing_is_confirmed(services: Services, passed: MakeCase) -> None:
    case = passed()
    store = services.stores.of_job(case.job.id)
    with services.database.transaction() as session:
        job = session.get_one(Job, case.job.id)
        with pytest.raises(IntegrityError, match="demands two evaluators, one has measured") as error:
            require_confirmation(session, store, job=job, first=case.decision)
    assert error.value.param == "confirmation"


@pytest.mark.parametrize("decided", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_another_decision_confirms_nothing(services: Services, passed: MakeCase, decided: Decision) -> None:
    case = passed()
    decision = case.decision.model_copy(update={"decision": decided, "reasons": ("Too toxic.",)})
    wanted = f"{case.job.id}: The first evaluator decided release, the second {decided}."
    with pytest.raises(IntegrityError, match=wanted):
        confirm(services, case, case.report, decision)


def test_a_rule_that_was_not_passed_confirms_nothing(services: Services, passed: MakeCase) -> None:
    case = passed()
    first, *rest = case.decision.results
    decision = case.decision.model_copy(update={"results": (first.model_copy(update={"outcome": "error"}), *rest)})
    with pytest.raises(IntegrityError, match="found that a rule was not passed"):
        confirm(services, case, case.report, decision)


def test_a_rule_that_only_warns_does_not_count(services: Services, passed: MakeCase) -> None:
    case = passed()
    first, *rest = case.decision.results
    warned = first.model_copy(update={"outcome": "fail", "mode": "warn"})
    decision = case.decision.model_copy(update={"results": (warned, *rest)})
    assert confirm(services, case, case.report, decision).decision == decision.digest


@pytest.mark.parametrize("field", ["policy", "report"])
def test_a_decision_about_something_else_confirms_nothing(services: Services, passed: MakeCase, field: str) -> None:
    case = passed()
    with pytest.raises(IntegrityError, match="is about something else"):
        confirm(services, case, case.report, case.decision.model_copy(update={field: OTHER}))


@pytest.mark.parametrize("field", ["adapter", "spec", "policy"])
def test_a_report_about_something_else_confirms_nothing(services: Services, passed: MakeCase, field: str) -> None:
    case = passed()
    report = case.report.model_copy(update={field: OTHER})
    with pytest.raises(IntegrityError, match="is about something else"):
        confirm(services, case, report, case.decision.model_copy(update={"report": report.digest}))


def test_a_report_whose_proof_is_about_another_adapter_confirms_nothing(services: Services, passed: MakeCase) -> None:
    case = passed()
    report = case.report.model_copy(update={"proof": case.report.proof.model_copy(update={"adapter": OTHER})})
    with pytest.raises(IntegrityError, match="is about something else"):
        confirm(services, case, report, case.decision.model_copy(update={"report": report.digest}))


def test_two_releases_of_different_adapters_disagree(passed: MakeCase) -> None:
    """With `best_passing_checkpoint` each evaluator may come to another one."""
    first = passed().decision
    assert disagreement(first, first) is None
    why = disagreement(first, first.model_copy(update={"adapter": OTHER}))
    assert why == f"The first evaluator would release adapter {first.adapter}, the second {OTHER}."
