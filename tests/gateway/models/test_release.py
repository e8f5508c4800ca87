"""Releasing an adapter: the one way to a name."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

import gateway
from gateway.dependencies import Services
from gateway.models.service import release_adapter
from gateway.tables.jobs import Job
from gateway.tables.models import Model
from policies.contract.artifacts import digest_bytes
from policies.contract.release import AdapterManifest, Decision, RuleOutcome
from policies.errors import IntegrityError, TunegateError

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
    manifest = services.store.get_record(model.manifest_digest, AdapterManifest)
    assert (manifest.adapter, manifest.report) == (case.training.adapter, case.report.digest)
    assert (manifest.decision, manifest.training_record) == (case.decision.digest, case.training.digest)


def test_name_without_suffix_has_an_empty_part(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    case.job.suffix = None
    assert release(services, case).id == f"ft:smollm2-135m-instruct:acme::{case.job.id[-8:]}"


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
    case.job.report_digest = services.store.put_record(report)
    case.decision = case.decision.model_copy(update={"report": report.digest})
    case.job.decision_digest = case.decision.digest
    assert_refused(services, case)


@pytest.mark.parametrize("field", ["adapter", "spec", "base_model"])
def test_training_record_about_something_else_is_refused(
    services: Services, passed: Callable[..., Case], field: str
) -> None:
    case = passed()
    training = case.training.model_copy(update={field: OTHER})
    case.job.training_record_digest = services.store.put_record(training)
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


def test_tampered_report_in_the_store_is_refused(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    name = case.report.digest.removeprefix("sha256:")
    path = Path(services.settings.store_url.removeprefix("file://"), "sha256", name[:2], name)
    path.write_bytes(path.read_bytes().replace(b'"made up"', b'"made in"'))
    assert_refused(services, case)


def test_second_release_is_refused(services: Services, passed: Callable[..., Case]) -> None:
    case = passed()
    release(services, case)
    with pytest.raises(IntegrityError, match="released before"):
        release(services, case)


def assert_refused(services: Services, case: Case) -> None:
    with pytest.raises(TunegateError):
        release(services, case)
    assert released_names(services, case) == (None, None)


def test_nothing_else_in_the_gateway_writes_the_name() -> None:
    """Assignments, keyword arguments, `setattr` and dictionary keys of that name, outside schemas that show it."""
    root = Path(gateway.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) >= 40
    writers = [path.relative_to(root).as_posix() for path in files if writes_the_name(ast.parse(path.read_text()))]
    assert writers == ["models/service.py"]


def writes_the_name(tree: ast.Module) -> bool:
    name = "fine_tuned_model"
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=attribute, ctx=ast.Store() | ast.Del()) if attribute == name:
                return True
            case ast.Call(func=ast.Name(id="Job" | "setattr" | "update") | ast.Attribute(attr="values" | "update")):
                texts = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
                if name in texts or any(keyword.arg == name for keyword in node.keywords):
                    return True
    return False


@pytest.mark.parametrize(
    "source",
    [
        "job.fine_tuned_model = 'x'",
        "job.fine_tuned_model: str = 'x'",
        "job.fine_tuned_model += 'x'",
        "Job(fine_tuned_model='x')",
        "setattr(job, 'fine_tuned_model', 'x')",
        "update(Job).values(fine_tuned_model='x')",
        "update(Job).values({'fine_tuned_model': 'x'})",
        "a, job.fine_tuned_model = 1, 'x'",
    ],
)
def test_the_scan_sees_every_way_to_write(source: str) -> None:
    assert writes_the_name(ast.parse(source))


def test_the_scan_lets_reading_through() -> None:
    assert not writes_the_name(ast.parse("JobResponse(fine_tuned_model=job.fine_tuned_model)"))
