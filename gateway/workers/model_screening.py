"""What models found in a job's training file, checked and put into the job's screening report.

A trainer says it, so it is held against the job: it must be about this file, on the base model that was trained, and
by screens that the policy asks for. What it doesn't say stays not screened, which holds the release.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.events import add_event
from gateway.jobs.records import RecordError, load_record
from gateway.policy_catalog import policy_of
from gateway.screening.file_report import screening_event
from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec
from policies.contract.screening import MODEL_SCREENS, ModelScreening, ScreeningFacts, ScreeningReport
from policies.contract.store import ArtifactStore
from policies.errors import ArtifactMissingError, IntegrityError
from policies.screening.judging import extended


def extend_report(
    session: Session, services: Services, *, job: Job, screening: Digest, base_model: Digest | None
) -> ScreeningReport | None:
    """The job's report with what the trainer's models found, kept and announced.

    None where the job has no report of its own file under its policy, for which its release is held anyway, or where
    its policy asks for no such screen.

    Args:
        base_model: that was trained; None where nothing was.

    Raises:
        RecordError: the trainer's record is missing, or does not answer this job.
    """
    store = services.stores.of_job(job.id)
    policy = policy_of(services.stores.shared, job.policy_digest)
    asked = {rule.name for rule in policy.spec.screening if rule.screen in MODEL_SCREENS}
    report = _report(store, job)
    if report is None or not asked:
        return None
    found = load_record(store, screening, ModelScreening)
    about = (found.training_file, found.base_model, found.facts.rows)
    if about != (report.file_digest, base_model or found.base_model, report.screened.rows):
        raise RecordError("record_mismatch", "What the trainer screened is not this job's file on its base model.")
    _require_asked(found.facts, asked)
    longer = extended(report, found.facts, rules=policy.spec.screening, mode=policy.spec.mode)
    job.screening_digest = store.put_record(longer)
    add_event(session, job, screening_event(longer), now=services.clock())
    return longer


def _report(store: ArtifactStore, job: Job) -> ScreeningReport | None:
    if job.screening_digest is None:
        return None
    try:
        report = store.get_record(job.screening_digest, ScreeningReport)
    except (ArtifactMissingError, IntegrityError):
        return None
    about = (JobSpec.model_validate(job.spec).training_file, job.policy_digest)
    return report if (report.file_digest, report.policy.policy_digest) == about else None


def _require_asked(facts: ScreeningFacts, asked: set[str]) -> None:
    """Every screen that ran is one of this phase that was asked for, once, and says what looked."""
    ran = set(facts.by)
    named = ran | {each.by for each in facts.not_screened}
    instruments = [each.name for each in facts.instruments]
    is_sound = (
        named <= asked
        and len(ran) == len(facts.by)
        and {each.screen for each in facts.found} <= ran
        and sorted(instruments) == sorted(facts.by)
        and all(each.of <= facts.rows and each.count <= each.of for each in facts.found)
    )
    if not is_sound:
        raise RecordError("record_mismatch", "The trainer tells of other screens than the policy asks it for.")
