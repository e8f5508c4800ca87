"""How a base model's adapters are evaluated, as far as the gateway can know before a job is."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.base_models.checks import latest_check
from gateway.dependencies import Services
from gateway.policy_catalog import Evaluated, KnownEvaluation
from gateway.tables.jobs import Job
from gateway.tables.statistics import GateResult
from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport
from policies.contract.jobs import BaseModelSpec
from policies.contract.store import ArtifactStores
from policies.errors import ArtifactMissingError, IntegrityError

RECENT = 256
"""Verdicts among which the last one on a base model is looked for, so that a job's creation costs the same for ever."""


class _Made(NamedTuple):
    """What a report was made with."""

    engine: str
    dtype: str


def known_evaluation(session: Session, services: Services, spec: BaseModelSpec) -> KnownEvaluation | None:
    """From the last look at the model and the last verdict on an adapter of it; None where nobody has looked at it.

    Args:
        spec: as the operator offers it.
    """
    known = latest_check(session, spec)
    if known is None or known.check.text is None:
        return None
    return KnownEvaluation(known.check.text, known.check.base, _last_evaluated(session, services, spec.name))


def known_evaluations(session: Session, services: Services) -> dict[str, KnownEvaluation]:
    """Of the base models with calibrations, by name."""
    names = {record.spec.model for record in services.policies.calibrations} & services.policies.base_models.keys()
    found = {
        name: known_evaluation(session, services, services.policies.base_model(name).spec) for name in sorted(names)
    }
    return {name: known for name, known in found.items() if known is not None}


def _last_evaluated(session: Session, services: Services, model: str) -> Evaluated | None:
    recent = select(GateResult.job_id, GateResult.id, GateResult.at).order_by(GateResult.id.desc()).limit(RECENT)
    verdicts = recent.subquery()
    row = session.execute(
        select(Job.id, Job.report_digest, verdicts.c.at)
        .join(verdicts, verdicts.c.job_id == Job.id)
        .where(Job.model == model, Job.report_digest.is_not(None))
        .order_by(verdicts.c.id.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    job_id, report, at = row
    try:
        return Evaluated(*_made_with(services.stores, job_id, report), at)
    except (ArtifactMissingError, IntegrityError):
        return None


@lru_cache(maxsize=64)
def _made_with(stores: ArtifactStores, job_id: str, digest: Digest) -> _Made:
    """Read once per process, because metrics ask for it at each scrape."""
    report = stores.of_job(job_id).get_record(digest, EvalReport)
    return _Made(report.engine, report.dtype)
