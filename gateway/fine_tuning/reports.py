"""`/v1/guardrail/jobs/{id}/report`: the verdict with everything that it stands on."""

from __future__ import annotations

from typing import Literal, NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from gateway.dependencies import Services, ServicesDep, SessionDep
from gateway.errors import NotFound
from gateway.fine_tuning.presenting import present_policy
from gateway.fine_tuning.schemas import PolicyReference
from gateway.jobs.repository import JobId, tenants_job
from gateway.kit.answers import content, refusals
from gateway.models.confirmation import disagreement, second_evaluation
from gateway.policy_catalog import policy_of
from gateway.screening.release_hold import release_hold
from gateway.tables.jobs import Job
from gateway.tenants.auth import CurrentTenant, Principal
from gateway.tenants.routes import TenantRoute
from policies.contract.evaluation import EvalReport, ProbeResult, SampleRecord
from policies.contract.hyperparameters import ResolvedHyperparameters
from policies.contract.merkle import jsonl_lines
from policies.contract.probe_overlap import NearRow, OverlapScan
from policies.contract.release import Decision, GateDecision, RuleResult
from policies.contract.screening import ScreeningReport
from policies.contract.store import ArtifactStore
from policies.contract.training import DefenseEvidence, TrainingRecord
from policies.documents.schema import ReleasePolicy
from policies.report.disclosure import RuleVerdict, Told, told, told_evidence
from policies.report.page import render_coarse, render_report

router = APIRouter(
    route_class=TenantRoute, prefix="/v1/guardrail/jobs", tags=["guardrail"], responses=refusals(401, 404)
)

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Of the page, which quotes what models said: it runs no script and loads nothing."""


class TrainingSummary(BaseModel):
    """What a report says of the training."""

    record: str
    hyperparameters: ResolvedHyperparameters
    n_examples: int
    total_steps: int
    trained_tokens: int
    train_loss: float
    valid_loss: float | None
    seconds: float
    tokens_per_second: float


class SecondVerdict(BaseModel):
    """What the second evaluator found, where the policy demands two."""

    decision: Decision
    reasons: tuple[str, ...]
    report: str
    gate_decision: str


class ReportResponse(BaseModel):
    """The verdict, each rule with figure, interval, limit, base value and sample counts, and the digests behind it."""

    object: str = "guardrail.report"
    job_id: str
    decision: Decision
    reasons: tuple[str, ...]
    disclosure: Literal["full", "coarse"]
    """`coarse`: the policy tells no figures. Then `rules` have outcome and direction alone, there are no `probes`,
    `warnings` and `overlap`, no `confidence`, and `evidence` says only that defenses acted."""
    rules: tuple[RuleResult, ...] | tuple[RuleVerdict, ...]
    probes: tuple[ProbeResult, ...]
    policy: PolicyReference
    confidence: float | None
    attempt: int
    """1, or more where jobs on nearly the same training file came before; then the intervals are wider."""
    adapter: str
    base_model: str
    spec: str
    report: str
    gate_decision: str
    overlap: ProbeOverlap | None = None
    """Null where the training file was not searched for prompts of the evaluation."""
    second: SecondVerdict | None
    """Null where one evaluator was enough. If the two differ, `decision` is `inconclusive`."""
    calibration: str | None
    """Of the base model, where the operator has one that holds for this report; the rules' error rates are from it."""
    warnings: tuple[str, ...]
    """What the calibration says against rules that decided all the same."""
    evidence: tuple[DefenseEvidence, ...]
    training: TrainingSummary


class ProbeOverlap(BaseModel):
    """Rows of the training file that hold prompts or answers that the evaluation asks."""

    n_rows: int
    n_near: int
    probes: tuple[str, ...]
    rows: tuple[NearRow, ...]
    """The first of them."""


class _Records(NamedTuple):
    job: Job
    training: TrainingRecord
    report: EvalReport
    decision: GateDecision
    second: GateDecision | None
    hold: str | None
    """Why screening of the training file holds back what the gate would release."""
    policy: ReleasePolicy

    @property
    def verdict(self) -> Told:
        """The first evaluator's, as told; without effect, and saying why, where the second or screening disagrees."""
        why = None
        if self.second is not None:
            why = disagreement(self.decision, self.second, reasons=told(self.second, self.policy).reasons)
        if self.decision.decision is Decision.RELEASE and self.job.decision != Decision.RELEASE:
            why = why or self.hold
        first = told(self.decision, self.policy)
        return first if why is None else first._replace(decision=Decision.INCONCLUSIVE, reasons=(why,))


@router.get("/{job_id}/report")
def report(job_id: JobId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> ReportResponse:
    records = _records(session, services, tenant=tenant, job_id=job_id)
    job, training, evaluation, decision, verdict = (*records[:4], records.verdict)
    overlap = None if evaluation.overlap is None or verdict.is_coarse else _overlap(evaluation.overlap)
    return ReportResponse(
        job_id=job.id,
        decision=verdict.decision,
        reasons=verdict.reasons,
        disclosure=records.policy.spec.disclosure,
        rules=verdict.rules,
        probes=() if verdict.is_coarse else _without_twins(evaluation.probes),
        policy=present_policy(job, services),
        confidence=None if verdict.is_coarse else evaluation.confidence,
        attempt=evaluation.attempt,
        adapter=evaluation.adapter,
        base_model=evaluation.base_model,
        spec=job.spec_digest,
        report=decision.report,
        gate_decision=decision.digest,
        overlap=overlap,
        second=None if records.second is None else _second(records.second, records.policy),
        calibration=decision.calibration,
        warnings=verdict.warnings,
        evidence=told_evidence(training.evidence, records.policy),
        training=_summary(training),
    )


@router.get("/{job_id}/report.html", response_class=Response, responses=content("text/html"))
def report_page(job_id: JobId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> HTMLResponse:
    records = _records(session, services, tenant=tenant, job_id=job_id)
    page = _page(records, services.stores.of_job(records.job.id))
    return HTMLResponse(page, headers={"content-security-policy": PAGE_POLICY})


@router.get("/{job_id}/screening")
def screening(job_id: JobId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> ScreeningReport:
    """What screening found in the job's training file before a step was trained."""
    job = tenants_job(session, tenant.tenant_id, job_id)
    if job.screening_digest is None:
        message = f"Job {job.id} has no screening report: its policy screens nothing, or its file was not read yet."
        raise NotFound(message, "fine_tuning_job_id", "screening_not_found")
    return services.stores.of_job(job.id).get_record(job.screening_digest, ScreeningReport)


def _page(records: _Records, store: ArtifactStore) -> str:
    job, evaluation, policy, verdict = records.job, records.report, records.policy, records.verdict
    title = job.fine_tuned_model or job.id
    if verdict.is_coarse:
        return render_coarse(title, told=verdict, report=evaluation, policy=policy)
    shown = records.decision.model_copy(update={"decision": verdict.decision, "reasons": verdict.reasons})
    samples = _samples(evaluation, store)
    return render_report(
        title, decision=shown, report=evaluation, policy=policy, training=records.training, samples=samples
    )


def _records(session: Session, services: Services, *, tenant: Principal, job_id: str) -> _Records:
    job = tenants_job(session, tenant.tenant_id, job_id)
    if job.decision is None or not (job.report_digest and job.decision_digest and job.training_record_digest):
        message = f"Job {job.id} has no report: it was not evaluated (phase {job.phase})."
        raise NotFound(message, "fine_tuning_job_id", "report_not_found")
    store, second = services.stores.of_job(job.id), second_evaluation(session, job)
    policy = policy_of(services.stores.shared, job.policy_digest)
    return _Records(
        job,
        store.get_record(job.training_record_digest, TrainingRecord),
        store.get_record(job.report_digest, EvalReport),
        store.get_record(job.decision_digest, GateDecision),
        None if second is None else store.get_record(second.decision_digest, GateDecision),
        release_hold(store, job, policy),
        policy,
    )


def _second(decision: GateDecision, policy: ReleasePolicy) -> SecondVerdict:
    return SecondVerdict(
        decision=decision.decision,
        reasons=told(decision, policy).reasons,
        report=decision.report,
        gate_decision=decision.digest,
    )


def _without_twins(probes: tuple[ProbeResult, ...]) -> tuple[ProbeResult, ...]:
    """The figures of secret prompts would tell how near to them somebody came."""
    return tuple(probe.model_copy(update={"twin": None}) for probe in probes)


def _overlap(scan: OverlapScan) -> ProbeOverlap:
    """What a tenant may know of it: public prompts alone, so that nobody can search for the secret ones."""
    near = frozenset(row.probe for row in scan.rows)
    return ProbeOverlap(
        n_rows=scan.n_rows,
        n_near=scan.n_near,
        probes=tuple(probe for probe in scan.probes if probe in near),
        rows=scan.rows,
    )


def _samples(report: EvalReport, store: ArtifactStore) -> list[SampleRecord] | None:
    """The samples, or None where they are not kept any more."""
    if report.samples is None or not store.exists(report.samples):
        return None
    return [SampleRecord.model_validate_json(line) for line in jsonl_lines(store.read_bytes(report.samples))]


def _summary(training: TrainingRecord) -> TrainingSummary:
    fields = set(TrainingSummary.model_fields) - {"record"}
    return TrainingSummary(record=training.digest, **{name: getattr(training, name) for name in fields})
