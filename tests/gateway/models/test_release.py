"""Releasing an adapter: the one way to a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from gateway.dependencies import Services
from gateway.models.service import delete_model, release_adapter
from gateway.tables.jobs import Job
from gateway.tables.models import Model
from policies.contract.artifacts import digest_bytes
from policies.contract.release import AdapterManifest, Decision, RuleOutcome
from policies.errors import IntegrityError, TunegateError
from tests.gateway.records import put_earlier_adapter

if TYPE_CHECKING:
    from tests.gateway.models.conftest import Case

OTHER = digest_bytes(b"something else")
RECORDS = ("adapter", "report", "training_record", "decision")


def release(services: Services, case: Case) -> Model:
    with services.database.transaction() as session:
        job = session.merge(case.job)
        model = release_adapter(session, services, job=job, decision=case.decision)
        case.job = job
    return model


def released_names(services: Services, case: Case) -> tuple[str | None, Model | None]:
    with services.database.transaction() as session:
        job = session.get_one(Job, case.job.id)
        return job.fine_tuned_model, session.scalar(Model.__table__.select())


def test_passed_adapter_gets_its_name_and_manifest(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    assert case.decision.decision is Decision.RELEASE
    model = release(services, case)
    assert model.id == f"ft:smollm2-135m-instruct:acme:kind:{case.job.id[-8:]}"
    assert case.job.fine_tuned_model == model.id
    manifest = services.stores.of_job(model.job_id).get_record(model.manifest_digest, AdapterManifest)
    assert (manifest.adapter, manifest.report) == (case.training.adapter, case.report.digest)
    assert (manifest.decision, manifest.training_record) == (case.decision.digest, case.training.digest)


def test_name_without_suffix_has_an_empty_part(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    case.job.suffix = None
    assert release(services, case).id == f"ft:smollm2-135m-instruct:acme::{case.job.id[-8:]}"


def test_an_adapter_in_the_form_of_earlier_versions_is_released_of_their_jobs_alone(
    services: Services, passed: Callable[..., Case]
) -> None:
    message, _ = refusal(services, passed(put=put_earlier_adapter))
    assert "must hold" in message
    case = passed(put=put_earlier_adapter, base_text=None)
    assert release(services, case).adapter_digest == case.training.adapter


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_any_other_decision_is_refused(services: Services, passed: Callable[..., Case], decision: Decision) -> None:
    case = passed()
    case.decision = case.decision.model_copy(update={"decision": decision})
    case.job.decision_digest = case.decision.digest
    assert_refused(services, case)


@pytest.mark.parametrize("outcome", [outcome for outcome in get_args(RuleOutcome) if outcome != "pass"])
def test_release_with_an_enforced_rule_that_did_not_pass_is_refused(
    services: Services, passed: Callable[..., Case], outcome: RuleOutcome
) -> None:
    case = passed()
    first, *rest = case.decision.results
    results = (first.model_copy(update={"outcome": outcome}), *rest)
    case.decision = case.decision.model_copy(update={"results": results})
    case.job.decision_digest = case.decision.digest
    assert_refused(services, case)


@pytest.mark.parametrize("field", ["adapter", "policy", "report"])
def test_decision_about_something_else_is_refused(services: Services, passed: Callable[..., Case], field: str) -> None:
    case = passed()
    case.decision = case.decision.model_copy(update={field: OTHER})
    case.job.decision_digest = case.decision.digest
    assert_refused(services, case)


@pytest.mark.parametrize("field", ["adapter", "policy", "spec", "base_model", "suite"])
def test_report_about_something_else_is_refused(services: Services, passed: Callable[..., Case], field: str) -> None:
    case = passed()
    report = case.report.model_copy(update={field: OTHER})
    case.job.report_digest = services.stores.of_job(case.job.id).put_record(report)
    case.decision = case.decision.model_copy(update={"report": report.digest})
    case.job.decision_digest = case.decision.digest
    assert_refused(services, case)


@pytest.mark.parametrize("field", ["adapter", "spec", "base_model"])
def test_training_record_about_something_else_is_refused(
    services: Services, passed: Callable[..., Case], field: str
) -> None:
    case = passed()
    training = case.training.model_copy(update={field: OTHER})
    case.job.training_record_digest = services.stores.of_job(case.job.id).put_record(training)
    assert_refused(services, case)


def test_training_that_began_at_an_adapter_which_the_spec_does_not_name_is_refused(
    services: Services, passed: Callable[..., Case]
) -> None:
    case = passed()
    training = case.training.model_copy(update={"start": case.report.proof.model_copy(update={"adapter": OTHER})})
    case.job.training_record_digest = services.stores.of_job(case.job.id).put_record(training)
    assert_refused(services, case)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((column, OTHER) for column in ("policy_digest", "spec_digest")),
        *((f"{record}_digest", value) for record in RECORDS for value in (None, OTHER)),
    ],
)
def test_job_that_names_another_record_is_refused(
    services: Services, passed: Callable[..., Case], column: str, value: str | None
) -> None:
    case = passed()
    setattr(case.job, column, value)
    assert_refused(services, case)


def refusal(services: Services, case: Case) -> tuple[str, str | None]:
    """What the refused release says is wrong, and where."""
    with pytest.raises(IntegrityError) as error:
        release(services, case)
    return str(error.value), error.value.param


def test_adapter_that_the_run_did_not_leave_is_refused(services: Services, passed: Callable[..., Case]) -> None:
    """Report, proof and decision agree on it, but the training record does not know it."""
    case = passed()
    proof = case.report.proof.model_copy(update={"adapter": OTHER})
    report = case.report.model_copy(update={"adapter": OTHER, "proof": proof})
    case.job.report_digest = services.stores.of_job(case.job.id).put_record(report)
    case.decision = case.decision.model_copy(update={"adapter": OTHER, "report": report.digest})
    case.job.decision_digest = case.decision.digest

    message = f"job {case.job.id}: its run left no adapter {OTHER} that could be released"
    assert refusal(services, case) == (message, "adapter")
    assert released_names(services, case) == (None, None)


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("spec_digest", "spec"),
        ("policy_digest", "policy"),
        ("adapter_digest", "final adapter"),
        ("decision_digest", "decision"),
    ],
)
def test_refusal_names_what_the_job_says_otherwise(
    services: Services, passed: Callable[..., Case], column: str, what: str
) -> None:
    case = passed()
    found = ", ".join(sorted((OTHER, getattr(case.job, column))))
    setattr(case.job, column, OTHER)

    message = f"job {case.job.id}: its records name different {what}s: {found}; nothing is released"
    assert refusal(services, case) == (message, what)


@pytest.mark.parametrize(
    ("field", "what"), [("suite", "suite"), ("adapter", "adapter"), ("base_model", "base model"), ("spec", "spec")]
)
def test_refusal_names_what_the_report_says_otherwise(
    services: Services, passed: Callable[..., Case], field: str, what: str
) -> None:
    case = passed()
    found = ", ".join(sorted((OTHER, getattr(case.report, field))))
    report = case.report.model_copy(update={field: OTHER})
    case.job.report_digest = services.stores.of_job(case.job.id).put_record(report)
    case.decision = case.decision.model_copy(update={"report": report.digest})
    case.job.decision_digest = case.decision.digest

    message = f"job {case.job.id}: its records name different {what}s: {found}; nothing is released"
    assert refusal(services, case) == (message, what)


def test_refusal_names_another_report(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    case.decision = case.decision.model_copy(update={"report": OTHER})
    case.job.decision_digest = case.decision.digest
    found = ", ".join(sorted((OTHER, case.report.digest)))

    message = f"job {case.job.id}: its records name different reports: {found}; nothing is released"
    assert refusal(services, case) == (message, "report")


def test_refusal_names_the_decision(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    case.decision = case.decision.model_copy(update={"decision": Decision.REJECT})
    case.job.decision_digest = case.decision.digest

    message = f"job {case.job.id}: the gate decided reject, so nothing is released"
    assert refusal(services, case) == (message, "decision")


def test_refusal_names_the_rule_that_did_not_pass(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    failed = tuple(result.model_copy(update={"outcome": "fail"}) for result in case.decision.results)
    case.decision = case.decision.model_copy(update={"results": failed})
    case.job.decision_digest = case.decision.digest

    message = f"job {case.job.id}: an enforced rule was not passed, so nothing is released"
    assert refusal(services, case) == (message, "decision")


@pytest.mark.parametrize("mode", ["warn", "audit"])
def test_rule_that_is_not_enforced_does_not_stop_a_release(
    services: Services, passed: Callable[..., Case], mode: str
) -> None:
    case = passed()
    first, *rest = case.decision.results
    watching = first.model_copy(update={"mode": mode, "outcome": "fail"})
    case.decision = case.decision.model_copy(update={"results": (watching, *rest)})
    case.job.decision_digest = case.decision.digest

    assert release(services, case).id == case.job.fine_tuned_model


def test_refusal_names_the_earlier_release(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    name = release(services, case).id

    message = f"job {case.job.id} has already been released, as {name}"
    assert refusal(services, case) == (message, "fine_tuned_model")


def test_refusal_names_the_record_that_is_missing(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    case.job.report_digest = None

    assert refusal(services, case) == ("the job has no EvalReport; nothing is released", None)


@pytest.mark.parametrize("change", [{"id": "ftjob-another"}, {"model": "another-base-model"}])
def test_spec_of_another_job_is_refused(
    services: Services, passed: Callable[..., Case], change: dict[str, str]
) -> None:
    case = passed()
    was = case.job.id
    for name, value in change.items():
        setattr(case.job, name, value)
    for record in (case.training, case.report):
        services.stores.of_job(case.job.id).put_record(record)
    with pytest.raises(IntegrityError) as error, services.database.transaction() as session:
        release_adapter(session, services, job=case.job, decision=case.decision)

    assert str(error.value) == f"job {case.job.id}: its spec belongs to {was} on smollm2-135m-instruct"
    assert error.value.param == "spec"


def test_manifest_says_all_that_the_name_stands_for(services: Services, passed: Callable[..., Case]) -> None:
    case = passed("globex")
    model = release(services, case)
    manifest = services.stores.of_job(model.job_id).get_record(model.manifest_digest, AdapterManifest)

    assert manifest.model_dump() == {
        "model": f"ft:smollm2-135m-instruct:globex:kind:{case.job.id[-8:]}",
        "job_id": case.job.id,
        "adapter": case.training.adapter,
        "base_model_name": "smollm2-135m-instruct",
        "base_model": case.training.base_model,
        "spec": case.training.spec,
        "training_record": case.training.digest,
        "report": case.report.digest,
        "policy": case.report.policy,
        "decision": case.decision.digest,
        "created_at": 1_790_000_000,
    }
    assert (model.tenant_id, model.job_id, model.created_at) == (case.job.tenant_id, case.job.id, 1_790_000_000)
    assert model.adapter_digest == case.training.adapter


def test_tampered_report_in_the_store_is_refused(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    name = case.report.digest.removeprefix("sha256:")
    folder = services.stores.of_job(case.job.id).url.removeprefix("file://")
    path = Path(folder, "sha256", name[:2], name)
    path.write_bytes(path.read_bytes().replace(b'"made up"', b'"made in"'))
    assert_refused(services, case)


def test_second_release_is_refused(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    release(services, case)
    with pytest.raises(IntegrityError, match="already been released"):
        release(services, case)


def assert_refused(services: Services, case: Case) -> None:
    with pytest.raises(TunegateError):
        release(services, case)
    assert released_names(services, case) == (None, None)


def test_weights_of_a_deleted_model_are_swept_next(services: Services, passed: Callable[..., Case]) -> None:
    model = release(services, passed())
    with services.database.transaction() as session:
        session.get_one(Job, model.job_id).sweep_at = None
    with services.database.transaction() as session:
        assert delete_model(session, services, tenant_id=model.tenant_id, model_id=model.id) == model.id
    with services.database.reading() as session:
        assert session.get_one(Model, model.id).deleted_at == services.now()
        assert session.get_one(Job, model.job_id).sweep_at == services.clock()
