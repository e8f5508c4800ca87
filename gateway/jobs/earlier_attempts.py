"""Retries: which try a job is at getting nearly the same training file past the gate.

An evaluation errs with a small probability; whoever repeats a job until it passes would collect that probability
every time. Attempt r therefore has the error probability α / 2^(r − 1) (`policies.contract.error_budget`), and what
is bounded is the chance that an unsafe adapter of this data is ever released by mistake. Of the organisation's jobs on
the same base model and under a policy of the same name, these count as earlier attempts, whichever of its tenants
(`gateway.tenants.organisations`) and whoever's key sent them:

- Those whose evaluation began and that the gate did not release, also where it ended in a failure or was cancelled:
  who could cancel what goes badly without a trace would have a first attempt again and again.
- Those that may still be evaluated. Otherwise jobs that are sent together would all be first attempts.

Files that were refused, and jobs that failed or were cancelled before their evaluation, took no chance. Nor does a
release count: up to the first mistaken release all unsafe adapters were refused, and every refusal counts. Of such jobs
nothing is kept, but of a release what it was trained on, for those who continue from it.

A job that continues a released model goes on training with what that model was trained on. So it is compared by its own
file, by its own and the parent's as if they were one, and so on to its whole lineage; and so are the earlier jobs that
continue one. Whoever deals bad data out over a lineage, in whatever order, has no more first attempts at it than with
one file.

Files are nearly the same where at least half of what the smaller one trains is in the other
(`policies.datasets.fingerprint`). Of such jobs `MAX_COUNTED` are counted and indexed: with as many, no error
probability is left whatever the policy's confidence, so a later attempt can't end in a release and takes no chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sqlalchemy import ColumnElement, Row, exists, or_, select
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.events import record_event
from gateway.jobs.fingerprints import (
    forget,
    keep_for_successors,
    latest,
    likely,
    remember,
    sketches,
    stretches,
)
from gateway.jobs.states import TERMINAL
from gateway.policy_catalog import policy_of
from gateway.tables.jobs import Job
from gateway.tables.statistics import PhaseTransition
from gateway.tenants.organisations import lock_organisation
from policies.contract.jobs import JobSpec, Phase
from policies.contract.release import Decision
from policies.datasets.fingerprint import NEAR_DUPLICATE, DatasetFingerprint, Hashes, containment

MAX_COUNTED = 64
"""2^−64 of an error probability is less than what a float near 1 can show."""
ASKED_AT_ONCE, COMPARED_AT_ONCE = 1000, 64
MAY_BE_EVALUATED = frozenset(Phase) - TERMINAL - {Phase.VALIDATING, Phase.CANCELLING}
"""A job that validates is not numbered yet: it will find this one before it."""


def number_attempt(
    session: Session, services: Services, *, job: Job, fingerprint: DatasetFingerprint, now: float
) -> None:
    """Fix the job's earlier attempts in its spec, before anything of it is measured, and tell the tenant of them.

    Those of other tenants of the organisation count, and are told by their number alone.
    """
    earlier = earlier_attempts(session, services, job=job, fingerprint=fingerprint)
    if len(earlier) < MAX_COUNTED:
        remember(session, job, fingerprint, stretches(session, job, fingerprint)[1:])
    if not earlier:
        return
    spec = JobSpec.model_validate(job.spec).model_copy(update={"earlier_attempts": len(earlier)})
    job.spec, job.spec_digest = spec.model_dump(mode="json"), services.stores.of_job(job.id).put_record(spec)
    jobs = "1 earlier job was" if len(earlier) == 1 else f"{len(earlier)} earlier jobs were"
    message = (
        f"This is attempt {spec.attempt} on nearly the same training file: {jobs} evaluated without a release, or may "
        "still be. The intervals of its safety check are therefore wider than those of a first attempt, so that "
        "trying again does not get an unsafe model released by chance."
    )
    own = set(session.scalars(select(Job.id).where(Job.id.in_(earlier), Job.tenant_id == job.tenant_id)))
    data = {"attempt": spec.attempt, "earlier_jobs": [each for each in earlier if each in own]}
    record_event(session, job, message, now=now, level="warn", data=data)


def earlier_attempts(session: Session, services: Services, *, job: Job, fingerprint: DatasetFingerprint) -> list[str]:
    """Ids of the jobs that count, oldest first. Until the transaction ends, the organisation has no other numbered."""
    tenants = lock_organisation(session, job.tenant_id)
    mine = stretches(session, job, fingerprint)
    n_shared = dict.fromkeys(latest(session, tenants), 0)
    for stretch in mine:
        for job_id, n in likely(session, tenants, stretch).items():
            n_shared[job_id] = max(n, n_shared.get(job_id, 0))
    policy = policy_of(services.stores.shared, job.policy_digest).metadata.name
    ages = {
        row.id: (row.created_at, row.id)
        for row in _countable(session, job, list(n_shared))
        if policy_of(services.stores.shared, row.policy_digest).metadata.name == policy
    }
    likeliest_first = sorted(ages, key=lambda job_id: (-n_shared[job_id], ages[job_id]))
    return sorted(_near(session, likeliest_first, mine), key=ages.__getitem__)


def refused_files(
    session: Session, services: Services, *, job: Job, fingerprint: DatasetFingerprint
) -> tuple[int, float]:
    """How many earlier attempts the gate rejected, and the largest share that the job's file has in common with theirs.

    What it could not decide, or what screening held back, says nothing against the data: if that counted, one such job
    would hold back every later one on the same file.
    """
    earlier = earlier_attempts(session, services, job=job, fingerprint=fingerprint)
    refused = session.scalars(select(Job.id).where(Job.id.in_(earlier), Job.decision == Decision.REJECT)).all()
    mine = [np.asarray(each.hashes, np.uint64) for each in stretches(session, job, fingerprint)]
    others = [other for each in sketches(session, list(refused)).values() for other in each]
    return len(refused), max((containment(own, other) for own in mine for other in others), default=0.0)


def _countable(session: Session, job: Job, candidates: list[str]) -> Iterator[Row[str, str, int]]:
    """Of the candidates those that count if their files are nearly the same.

    Asked apart from the index of fingerprints, so that each is found by its id: of both at once a database may think
    that it were cheaper to look through all jobs for each of them.
    """
    for start in range(0, len(candidates), ASKED_AT_ONCE):
        yield from session.execute(
            select(Job.id, Job.policy_digest, Job.created_at)
            .where(Job.id.in_(candidates[start : start + ASKED_AT_ONCE]), Job.id != job.id)
            .where(Job.model == job.model)
            .where(or_(Job.decision.is_(None), Job.decision != Decision.RELEASE))
            .where(or_(Job.phase.in_(MAY_BE_EVALUATED), _was_evaluated()))
        )


def forget_if_no_attempt(session: Session, job: Job) -> None:
    """Drop the fingerprint of a job that has ended and does not count; of a release it is kept elsewhere."""
    evaluated = session.scalar(select(_was_evaluated()).where(Job.id == job.id))
    if job.phase == Phase.RELEASED:
        keep_for_successors(session, job.id)
    if job.phase == Phase.RELEASED or not evaluated:
        forget(session, job.id)


def _was_evaluated() -> ColumnElement[bool]:
    return exists().where(PhaseTransition.job_id == Job.id, PhaseTransition.phase_to == Phase.EVALUATING)


def _near(session: Session, candidates: list[str], own: Sequence[DatasetFingerprint]) -> list[str]:
    """Those of the candidates whose files are nearly the same, at most `MAX_COUNTED`."""
    near: list[str] = []
    mine = [np.asarray(each.hashes, np.uint64) for each in own]
    for start in range(0, len(candidates), COMPARED_AT_ONCE):
        known = sketches(session, candidates[start : start + COMPARED_AT_ONCE])
        near += [job_id for job_id, others in known.items() if _is_near(mine, others)]
        if len(near) >= MAX_COUNTED:
            break
    return near[:MAX_COUNTED]


def _is_near(mine: Sequence[Hashes], others: Sequence[Hashes]) -> bool:
    return any(containment(own, other) >= NEAR_DUPLICATE for own in mine for other in others)
