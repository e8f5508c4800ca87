"""A job whose `model` is a released one (`ft:…`): what it continues, and on which terms.

The LoRA shape is the released adapter's, whatever the operator's recipe says by now; the base model must be the same.
Policy, defenses, training numbers and limits are those of today, and the safety check compares with the base model.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.base_models.checks import latest_check, require_checked
from gateway.dependencies import Services
from gateway.errors import InvalidRequest
from gateway.fine_tuning.spec import OperatorTerms
from gateway.jobs.records import RecordError, load_record, spec_to_work_by
from gateway.models.repository import tenants_model
from gateway.tables.fingerprints import ModelFingerprint
from gateway.tables.jobs import Job
from gateway.tables.models import Model
from gateway.tenants.auth import Principal
from policies.contract.adapter_files import require_adapter
from policies.contract.jobs import BaseModelSpec, JobSpec, Lineage, ReleasedAncestor
from policies.contract.release import AdapterManifest
from policies.documents.schema import BaseModelDocument
from policies.errors import ArtifactMissingError, IntegrityError

PREFIX = "ft:"


def continued_terms(session: Session, services: Services, *, tenant: Principal, model: str) -> OperatorTerms:
    """The operator's terms for a job that continues the tenant's own model.

    Raises:
        NotFound: the tenant has no released model of that name, whoever else may have one.
        InvalidRequest: it can't be continued here.
    """
    row = tenants_model(session, tenant.tenant_id, model).row
    try:
        spec = spec_to_work_by(session.get_one(Job, row.job_id))
        manifest = _manifest(services, row, spec)
    except (IntegrityError, ArtifactMissingError) as error:
        message = f"{row.id} can't be continued: its records are of an earlier version, or damaged. Train it again."
        raise _refusal(message) from error
    offered = _offered(services.policies.base_models.get(spec.base_model.name), row.id, spec.base_model)
    base_text = require_checked(session, offered.spec)
    lineage = _lineage(row, spec, manifest)
    _require_same_base(session, offered.spec, lineage)
    _require_depth(lineage, services.settings.max_lineage_depth)
    _require_comparable(session, lineage)
    as_before = {"lora": spec.base_model.lora, "hub_id": spec.base_model.hub_id}  # its configuration names both
    shaped = offered.model_copy(update={"spec": offered.spec.model_copy(update=as_before)})
    return OperatorTerms(services.policies.release_policy(tenant.policy), shaped, base_text, lineage)


def _manifest(services: Services, row: Model, spec: JobSpec) -> AdapterManifest:
    """The model's manifest, which must be about this row and this spec; the adapter must be of the spec's recipe."""
    store = services.stores.of_job(row.job_id)
    manifest = load_record(store, row.manifest_digest, AdapterManifest)
    named = (manifest.model, manifest.job_id, manifest.adapter, manifest.spec, manifest.continues)
    if named != (row.id, row.job_id, row.adapter_digest, spec.digest, spec.continues):
        raise RecordError("integrity_error", f"The manifest of {row.id} is about another model.")
    if spec.continues is not None and spec.continues.base_model != manifest.base_model:
        raise RecordError("integrity_error", f"The lineage of {row.id} is on another base model.")
    require_adapter(store, row.adapter_digest, spec.base_model, may_be_earlier=spec.is_of_earlier_version)
    return manifest


def _offered(document: BaseModelDocument | None, model: str, trained_on: BaseModelSpec) -> BaseModelDocument:
    """The operator's document of today, which must be of the same base model."""
    if document is None or (document.spec.uri, document.spec.revision) != (trained_on.uri, trained_on.revision):
        raise _refusal(
            f"{model} can't be continued: its base model {trained_on.name} is not offered any more, or is another one "
            "by now. Train on a base model that is offered."
        )
    return document


def _lineage(row: Model, spec: JobSpec, manifest: AdapterManifest) -> Lineage:
    own = ReleasedAncestor(
        model=row.id,
        job_id=row.job_id,
        adapter=row.adapter_digest,
        manifest=row.manifest_digest,
        training_file=spec.training_file,
    )
    before = spec.continues.ancestors if spec.continues else ()
    return Lineage(base_model=manifest.base_model, ancestors=(own, *before))


def _require_same_base(session: Session, offered: BaseModelSpec, lineage: Lineage) -> None:
    """By the bytes that an evaluator has looked at; the trainer looks again."""
    known = latest_check(session, offered)
    if known is None or known.check.base != lineage.base_model:
        raise _refusal(
            f"{lineage.parent.model} can't be continued: its base model {offered.name} was exchanged since. Train on "
            "the base model as it is now."
        )


def _require_depth(lineage: Lineage, most: int) -> None:
    if lineage.depth > most:
        message = (
            f"{lineage.parent.model} can't be continued: a new model may stand on {most} released ones here, and would "
            f"stand on {lineage.depth}. Train on its base model, with the files of the models in between."
        )
        raise InvalidRequest(message, "model", "lineage_too_deep")


def _require_comparable(session: Session, lineage: Lineage) -> None:
    """Without the fingerprints of all its files, tries at the same data could not be told from new ones."""
    jobs = {each.job_id for each in lineage.ancestors}
    known = select(func.count()).where(ModelFingerprint.job_id.in_(jobs))
    if session.scalar(known) != len(jobs):
        raise _refusal(
            f"{lineage.parent.model} can't be continued: it was released by a version of the service that did not "
            "remember what it was trained on. Train it again."
        )


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, "model", "model_not_continuable")
