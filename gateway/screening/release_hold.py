"""Why an adapter is not released although the gate would: its training file was not found clean enough.

Fail-closed: where the policy screens, a release needs a report about this job's file under this policy whose verdict
lets it pass. A report that is missing or can't be read holds the release like one that says `review`.
"""

from __future__ import annotations

from gateway.tables.jobs import Job
from policies.contract.jobs import JobSpec
from policies.contract.screening import NOT_ASKED_FOR, NotScreened, ScreeningReport
from policies.contract.store import ArtifactStore
from policies.documents.schema import ReleasePolicy
from policies.errors import ArtifactMissingError, IntegrityError

REASON = "screening"
UNSAFE_FILE_CODE = "unsafe_file"
"""Of a job whose policy blocks its file."""
PASSING = frozenset({"clean", "warn"})


def release_hold(store: ArtifactStore, job: Job, policy: ReleasePolicy) -> str | None:
    """The reason, or None where screening has nothing against a release."""
    if not policy.spec.screening or policy.spec.mode != "enforce":
        return None
    if job.screening_digest is None:
        return f"{REASON}: the training file was not screened"
    try:
        report = store.get_record(job.screening_digest, ScreeningReport)
    except (ArtifactMissingError, IntegrityError):
        return f"{REASON}: the report on the training file can't be read"
    about = (JobSpec.model_validate(job.spec).training_file, job.policy_digest)
    if (report.file_digest, report.policy.policy_digest) != about:
        return f"{REASON}: the report is about another file or policy"
    return None if report.verdict in PASSING else f"{REASON}: {told(report)}"


def told(report: ScreeningReport) -> str:
    """The findings that hold or block, with their counts and rows, and what was not screened."""
    parts = [f"{each.id}: {each.message}" for each in report.findings if each.action in ("review", "block")]
    if not parts or report.verdict == "review":
        parts += [f"not screened by {each.by} ({each.reason})" for each in _asked_for(report)]
    return "; ".join(parts) + "."


def _asked_for(report: ScreeningReport) -> list[NotScreened]:
    return [each for each in report.screened.not_screened if each.reason != NOT_ASKED_FOR]
