"""Records that a job stands on, read as what they claim to be or refused: its spec, and what workers left behind."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from gateway.kit.plain_text import unstorable_character_in
from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest, Record
from policies.contract.jobs import JobSpec
from policies.contract.store import ArtifactStore
from policies.errors import ArtifactMissingError, IntegrityError
from policies.tenant_text import for_tenants

R = TypeVar("R", bound=Record)


class RecordError(IntegrityError):
    """A record does not hold up; its code and its words become the job's error, which a tenant reads."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(for_tenants(message))
        self.code = code
        self.args = (code, message)


def spec_to_work_by(job: Job) -> JobSpec:
    """What the job asks for.

    Raises:
        RecordError: its digest is another one: an earlier version of the gateway wrote it down, in another form.
    """
    message = "This job was created by an earlier version of the gateway, which is gone; create it again."
    try:
        spec = JobSpec.model_validate(job.spec)
    except ValidationError as error:
        raise RecordError("created_by_earlier_version", message) from error
    if spec.digest != job.spec_digest:
        raise RecordError("created_by_earlier_version", message)
    return spec


def load_record(store: ArtifactStore, digest: Digest | None, record_type: type[R]) -> R:
    """The record of that digest; its own digest is the given one, so nothing else can be meant by it."""
    name = record_type.__name__
    if digest is None:
        raise RecordError("artifact_missing", f"The worker's answer has no {name}.")
    try:
        record = store.get_record(digest, record_type)
    except ArtifactMissingError as error:
        raise RecordError("artifact_missing", f"The {name} {digest} is not in the artifact store.") from error
    except IntegrityError as error:
        raise RecordError("integrity_error", f"The {name} {digest} cannot be read: {error}") from error
    if (found := unstorable_character_in(record.model_dump(mode="json"))) is not None:
        raise RecordError("integrity_error", f"The {name} {digest} has the character {found}, which nothing can store.")
    if record.digest != digest:
        raise RecordError("integrity_error", f"The {name} {digest} is not in its canonical form.")
    return record
