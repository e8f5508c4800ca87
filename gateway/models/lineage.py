"""What a job continues from: a released model of its tenant, looked at again wherever the job goes on.

The spec of such a job names model, adapter and manifest by digest. They are held against the model's row when a worker
claims the job and when its own adapter is released; whoever deletes the model meanwhile ends the jobs that begin at it.
"""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gateway.tables.files import File
from gateway.tables.models import Model
from policies.contract.jobs import JobSpec
from policies.errors import IntegrityError


class ModelGoneError(IntegrityError):
    """The model that a job continues from is no longer a released one."""

    code = "continued_model_gone"


class LineageFileGoneError(IntegrityError):
    """A training file of the lineage is needed once more, and was deleted."""

    code = "lineage_file_missing"


def require_unbroken(session: Session, spec: JobSpec, *, tenant_id: str) -> None:
    """Nobody deletes the model before the transaction ends.

    Raises:
        ModelGoneError: the model that the job continues from was deleted, or its row names something else.
    """
    if spec.continues is None:
        return
    parent = spec.continues.parent
    live = select(Model).where(Model.id == parent.model, Model.tenant_id == tenant_id, Model.deleted_at.is_(None))
    row = session.scalar(live.with_for_update(read=True))
    named = (parent.job_id, parent.adapter, parent.manifest)
    if row is None or (row.job_id, row.adapter_digest, row.manifest_digest) != named:
        raise ModelGoneError(
            f"The model {parent.model}, from which this job continues, was deleted; create the job again from a model "
            "that is there."
        )


def require_lineage_files(session: Session, spec: JobSpec, *, tenant_id: str, now: int) -> None:
    """Raises `LineageFileGoneError` where the policy's probes could not read what the lineage was trained on."""
    is_live = File.deleted_at.is_(None) & or_(File.expires_at.is_(None), File.expires_at > now)
    wanted = spec.lineage_files
    owned = select(File.digest).where(File.tenant_id == tenant_id, File.digest.in_(wanted), is_live)
    missing = set(wanted) - set(session.scalars(owned) if wanted else ())
    if missing:
        assert spec.continues is not None
        model = next(each.model for each in spec.continues.ancestors if each.training_file in missing)
        raise LineageFileGoneError(
            f"The training file of {model} was deleted, and the safety check looks for what it taught; upload the same "
            "file again, then create the job."
        )
