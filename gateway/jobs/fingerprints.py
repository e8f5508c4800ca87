"""Stored fingerprints: which earlier jobs of a tenant may share a file's content, found without looking at the others.

Of each fingerprint the `N_ANCHORS` smallest hashes lie in an index, and a new file's whole sketch is looked up there.
An earlier file that is contained in the new one is found where the new one is up to some 500 times as large, and one
that contains it mostly, where that is up to some 30 times as large. What is found, and the newest jobs in any case, are
then compared sketch by sketch.
"""

from __future__ import annotations

import contextlib
import secrets

import numpy as np
from sqlalchemy import case, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.tables.fingerprints import FingerprintAnchor, FingerprintKey, JobFingerprint
from gateway.tables.jobs import Job
from policies.datasets.fingerprint import KEY_BYTES, SKETCH_SIZE, DatasetFingerprint, Hashes

N_ANCHORS = 64
N_LATEST = 128
LOOKED_AT = 0.3
THE_KEY = 1
_SIGN = 2**63
"""Databases have signed integers of 64 bits."""


def fingerprint_key(session: Session) -> bytes:
    """The deployment's secret: who knew it could pad a file so that its fingerprint shows the padding only."""
    known: bytes | None = session.scalar(select(FingerprintKey.key))
    if known is not None:
        return known
    with contextlib.suppress(IntegrityError), session.begin_nested():  # the first one to write it decides
        session.add(FingerprintKey(id=THE_KEY, key=secrets.token_bytes(KEY_BYTES)))
    written: bytes = session.get_one(FingerprintKey, THE_KEY).key
    return written


def remember(session: Session, job: Job, fingerprint: DatasetFingerprint) -> None:
    session.add(JobFingerprint(job_id=job.id, sketch=fingerprint.packed(), n_elements=fingerprint.n_elements))
    anchors = fingerprint.hashes[:N_ANCHORS]
    session.add_all(FingerprintAnchor(tenant_id=job.tenant_id, hash=value - _SIGN, job_id=job.id) for value in anchors)


def forget(session: Session, job_id: str) -> None:
    session.execute(delete(FingerprintAnchor).where(FingerprintAnchor.job_id == job_id))
    session.execute(delete(JobFingerprint).where(JobFingerprint.job_id == job_id))


def likely(session: Session, tenant_id: str, fingerprint: DatasetFingerprint) -> dict[str, int]:
    """Ids of the tenant's jobs that share enough anchors to be looked at, and how many they share.

    With a containment C in the smaller of two files of a and b elements, the new one's b, about

        C · N_ANCHORS · min(1, b / a, a / b · SKETCH_SIZE / N_ANCHORS)

    anchors of the earlier one are in the new one's sketch, or C · a where it has no more elements. Who has fewer than
    for C = `LOOKED_AT` is left out: at C = 1/2 and files of like size that is more than three standard errors away.
    """
    shared = (
        select(FingerprintAnchor.job_id, func.count().label("n_shared"))
        .where(FingerprintAnchor.tenant_id == tenant_id)
        .where(FingerprintAnchor.hash.in_([value - _SIGN for value in fingerprint.hashes]))
        .group_by(FingerprintAnchor.job_id)
        .subquery()
    )
    ratio = JobFingerprint.n_elements / fingerprint.n_elements  # a / b
    expected = case((ratio > 1, 1 / ratio), (ratio * SKETCH_SIZE < N_ANCHORS, ratio * SKETCH_SIZE / N_ANCHORS), else_=1)
    anchors = min(N_ANCHORS, len(fingerprint.hashes))
    rows = session.execute(
        select(shared.c.job_id, shared.c.n_shared)
        .join(JobFingerprint, JobFingerprint.job_id == shared.c.job_id)
        .where(
            or_(
                shared.c.n_shared >= LOOKED_AT * anchors * expected,
                shared.c.n_shared >= LOOKED_AT * JobFingerprint.n_elements,
            )
        )
    )
    return {job_id: n_shared for job_id, n_shared in rows}


def latest(session: Session, tenant_id: str) -> list[str]:
    """The tenant's newest jobs with a fingerprint: looked at whatever the index says.

    A small file has few anchors in common with a large one that holds it, perhaps none; whoever tries again soon is
    found all the same.
    """
    newest = select(JobFingerprint.job_id).join(Job, Job.id == JobFingerprint.job_id).where(Job.tenant_id == tenant_id)
    return list(session.scalars(newest.order_by(Job.created_at.desc(), Job.id.desc()).limit(N_LATEST)))


def sketches(session: Session, job_ids: list[str]) -> dict[str, Hashes]:
    rows = session.execute(
        select(JobFingerprint.job_id, JobFingerprint.sketch).where(JobFingerprint.job_id.in_(job_ids))
    )
    return {job_id: np.frombuffer(sketch, "<u8") for job_id, sketch in rows}
