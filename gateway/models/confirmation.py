"""The second evaluation of a release, where the policy demands two evaluators: do they agree, and on what?"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.tables.jobs import Job, SecondEvaluation
from policies.contract.evaluation import EvalReport
from policies.contract.release import Confirmation, Decision, GateDecision
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError


def second_evaluation(session: Session, job: Job) -> SecondEvaluation | None:
    return session.scalar(select(SecondEvaluation).where(SecondEvaluation.job_id == job.id))


def disagreement(first: GateDecision, second: GateDecision, *, reasons: Sequence[str] = ()) -> str | None:
    """Why the second evaluation does not confirm the release that the first decided on, or None where it does.

    Args:
        reasons: of the second's, as many as the tenant may be told (`policies.report.disclosure`).
    """
    if second.decision is not Decision.RELEASE:
        told = " ".join(reasons)
        return f"The first evaluator decided {first.decision}, the second {second.decision}. {told}".rstrip()
    if second.adapter != first.adapter:
        return f"The first evaluator would release adapter {first.adapter}, the second {second.adapter}."
    return None


def require_confirmation(session: Session, store: ArtifactStore, *, job: Job, first: GateDecision) -> Confirmation:
    """What the second evaluator found, read from the store by the digests that its row keeps.

    Raises:
        IntegrityError: unless it decided to release the same adapter, by the same policy, from a report about the same
            adapter, base model, suite and spec.
    """
    row = second_evaluation(session, job)
    if row is None:
        raise IntegrityError(f"job {job.id}: the policy demands two evaluators, one has measured", "confirmation")
    report, decision = (
        store.get_record(row.report_digest, EvalReport),
        store.get_record(row.decision_digest, GateDecision),
    )
    if (why := disagreement(first, decision)) is not None:
        raise IntegrityError(f"job {job.id}: {why}", "confirmation")
    if any(result.mode == "enforce" and result.outcome != "pass" for result in decision.results):
        raise IntegrityError(f"job {job.id}: the second evaluator found that a rule was not passed", "confirmation")
    found = (decision.report, decision.policy, report.adapter, report.proof.adapter, report.spec, report.policy)
    if found != (report.digest, first.policy, first.adapter, first.adapter, job.spec_digest, first.policy):
        raise IntegrityError(f"job {job.id}: the second evaluation is about something else", "confirmation")
    return Confirmation(report=row.report_digest, decision=row.decision_digest)
