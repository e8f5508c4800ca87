"""Stored fingerprints: which earlier jobs of an organisation may share a file's content, found without reading all.

Of each fingerprint the `N_ANCHORS` smallest hashes lie in an index, and a new file's whole sketch is looked up there.
An earlier file that is contained in the new one is found where the new one is up to some 500 times as large, and one
that contains it mostly, where that is up to some 30 times as large. What is found, and the newest jobs in any case, are
then compared sketch by sketch.

A job that continues a released model is found and compared by what it trains itself, and by each of the last stretches
of its lineage as if their files were one (`stretches`).
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from heapq import nlargest
from itertools import accumulate

import numpy as np
from sqlalchemy import case, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.tables.fingerprints import FingerprintAnchor, FingerprintKey, JobFingerprint, ModelFingerprint
from gateway.tables.jobs import Job, Json
from policies.contract.jobs import Lineage
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


def remember(
    session: Session, job: Job, fingerprint: DatasetFingerprint, longer: Sequence[DatasetFingerprint] = ()
) -> None:
    """Keep a job's own sketch, and let it be found by the `longer` stretches of its lineage too."""
    row = JobFingerprint(
        job_id=job.id, sketch=fingerprint.packed(), n_elements=fingerprint.n_elements, continues=bool(longer)
    )
    session.add(row)
    anchors = sorted({value for each in (fingerprint, *longer) for value in each.hashes[:N_ANCHORS]})
    session.add_all(FingerprintAnchor(tenant_id=job.tenant_id, hash=value - _SIGN, job_id=job.id) for value in anchors)


def keep_for_successors(session: Session, job_id: str) -> None:
    """What a job that releases a model was trained on: whoever continues from the model trains it too."""
    sketch = session.scalar(select(JobFingerprint.sketch).where(JobFingerprint.job_id == job_id))
    if sketch is not None:
        session.add(ModelFingerprint(job_id=job_id, sketch=sketch))


def stretches(session: Session, job: Job, own: DatasetFingerprint) -> tuple[DatasetFingerprint, ...]:
    """The job's own file, it with the file of the model before, and so on, to the whole lineage.

    Raises:
        LookupError: what one of those models was trained on is not known.
    """
    ancestors = _ancestors(job.spec)
    return _stretches(own, ancestors, _released(session, ancestors))


def _stretches(
    own: DatasetFingerprint, ancestors: Sequence[str], released: Mapping[str, DatasetFingerprint]
) -> tuple[DatasetFingerprint, ...]:
    return tuple(accumulate([own, *(released[job_id] for job_id in ancestors)], DatasetFingerprint.united))


def _ancestors(spec: Json) -> list[str]:
    """The jobs that released the models before a job's own, the nearest first."""
    lineage = Lineage.model_validate(spec["continues"]) if "continues" in spec else None
    return [each.job_id for each in lineage.ancestors] if lineage else []


def _released(session: Session, job_ids: Collection[str]) -> dict[str, DatasetFingerprint]:
    rows = select(ModelFingerprint.job_id, ModelFingerprint.sketch).where(ModelFingerprint.job_id.in_(job_ids))
    found = session.execute(rows) if job_ids else ()
    return {job_id: DatasetFingerprint.unpacked(sketch) for job_id, sketch in found}


def forget(session: Session, job_id: str) -> None:
    session.execute(delete(FingerprintAnchor).where(FingerprintAnchor.job_id == job_id))
    session.execute(delete(JobFingerprint).where(JobFingerprint.job_id == job_id))


def likely(session: Session, tenants: Collection[str], fingerprint: DatasetFingerprint) -> dict[str, int]:
    """Ids of the tenants' jobs that share enough anchors to be looked at, and how many they share.

    With a containment C in the smaller of two files of a and b elements, the new one's b, about

        C · N_ANCHORS · min(1, b / a, a / b · SKETCH_SIZE / N_ANCHORS)

    anchors of the earlier one are in the new one's sketch, or C · a where it has no more elements. Who has fewer than
    for C = `LOOKED_AT` is left out: at C = 1/2 and files of like size that is more than three standard errors away.
    """
    shared = (
        select(FingerprintAnchor.job_id, func.count().label("n_shared"))
        .where(FingerprintAnchor.tenant_id.in_(tenants))
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
                JobFingerprint.continues,  # its anchors are of several files, so any one counts
            )
        )
    )
    return {job_id: n_shared for job_id, n_shared in rows}


def latest(session: Session, tenants: Collection[str]) -> list[str]:
    """The newest jobs with a fingerprint, of all the tenants together: looked at whatever the index says.

    A small file has few anchors in common with a large one that holds it, perhaps none; whoever tries again soon is
    found all the same. Each tenant's newest are asked for apart, as the index of jobs has them.
    """
    with_one = select(Job.created_at, JobFingerprint.job_id).join(Job, Job.id == JobFingerprint.job_id)
    newest = with_one.order_by(Job.created_at.desc(), Job.id.desc()).limit(N_LATEST)
    of_each = (session.execute(newest.where(Job.tenant_id == tenant_id)) for tenant_id in tenants)
    found = ((row.created_at, row.job_id) for rows in of_each for row in rows)
    return [job_id for _, job_id in nlargest(N_LATEST, found)]


def sketches(session: Session, job_ids: list[str]) -> dict[str, list[Hashes]]:
    """Of each job its own sketch, and those of the longer stretches of its lineage."""
    rows = session.execute(
        select(JobFingerprint.job_id, JobFingerprint.sketch, JobFingerprint.continues).where(
            JobFingerprint.job_id.in_(job_ids)
        )
    ).all()
    continuing = [row.job_id for row in rows if row.continues]
    specs = session.execute(select(Job.id, Job.spec).where(Job.id.in_(continuing))) if continuing else ()
    ancestors = {job_id: _ancestors(spec) for job_id, spec in specs}
    released = _released(session, {each for job_ids in ancestors.values() for each in job_ids})
    found = {job_id: [np.frombuffer(sketch, "<u8")] for job_id, sketch, _ in rows}
    for job_id, before in ancestors.items():
        own = DatasetFingerprint(hashes=tuple(found[job_id][0].tolist()))
        longer = _stretches(own, before, released)[1:]
        found[job_id] += [np.asarray(each.hashes, np.uint64) for each in longer]
    return found
