"""Files from before tenants' files had a store of their own: moved there, once, by `tunegate upgrade`.

Whoever reads a file looks into `files/` first, so the copy takes the place of the old bytes at once. These are deleted
only if nothing else names them; whatever could is read for that: rows, policies, each artifact that lies beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.files import repository
from gateway.tables.jobs import Job, JobCheckpoint, SecondEvaluation
from gateway.tables.models import Model
from policies.contract.artifacts import CHUNK_BYTES, Digest, canonical_json
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.errors import TunegateError

log = structlog.get_logger(__name__)

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
DIGEST_LENGTH = 71
FILES_OF_A_SPEC = ("training_file", "validation_file")
"""What a job's spec calls its files, which are looked for in `files/`: they don't keep the old bytes."""


class Separated(NamedTuple):
    """What became of the old bytes."""

    copied: int
    deleted: int
    kept: int
    """Because something else names them, or could not be read."""


def unseparated(connection: Connection, stores: ArtifactStores) -> list[Digest]:
    """Contents of file objects, deleted ones among them, that lie beside what operators put there; at any migration."""
    uploaded = set(connection.execute(text("SELECT DISTINCT digest FROM files")).scalars())
    return sorted(artifact.digest for artifact in stores.shared.stored() if artifact.digest in uploaded)


def separate_files(services: Services, digests: Iterable[Digest]) -> Separated:
    """Copy what is needed, each checked; then delete what is not named. To be repeated where it was cut off."""
    candidates = list(digests)
    own = ArtifactStore(services.stores.files.url)  # without the other store, which it falls back on
    copied = [digest for digest in candidates if _copy_if_needed(services, own, digest)]
    try:
        named = _named_elsewhere(services)
    except (TunegateError, OSError) as error:
        log.error("old_files_kept", reason=str(error))
        return Separated(len(copied), 0, len(candidates))
    deleted = [digest for digest in candidates if digest not in named and _delete_old(services, own, digest)]
    return Separated(len(copied), len(deleted), len(candidates) - len(deleted))


def _copy_if_needed(services: Services, own: ArtifactStore, digest: Digest) -> bool:
    with services.database.reading() as session:
        is_needed = repository.is_needed(session, digest, services.now())
    if not is_needed or own.exists(digest):
        return False
    with services.stores.shared.open(digest) as stream, own.writer() as writer:
        while piece := stream.read(CHUNK_BYTES):
            writer.write(piece)
    return True


def _delete_old(services: Services, own: ArtifactStore, digest: Digest) -> bool:
    """Unless a file came to need them that was not copied."""
    with services.database.transaction() as session:
        repository.lock_digest(session, digest)
        if repository.is_needed(session, digest, services.now()) and not own.exists(digest):
            return False
        services.stores.shared.delete(digest)
    return True


def _named_elsewhere(services: Services) -> set[Digest]:
    """Every digest that a row, a policy or an artifact has in it, but for a spec's files."""
    named = set[Digest]()
    with services.database.transaction() as session:  # rows come in pieces, which a reading one does not do
        for content in _rows(session):
            named |= _digests_in(_without_files(content))
    for policy in services.policies.release_policies.values():
        named |= {policy.digest} | _digests_in(policy.canonical())
    for document in services.policies.base_models.values():
        named |= _digests_in(document.canonical())
    for artifact in services.stores.shared.stored():
        named |= _named_in(services.stores.shared, artifact.digest)
    return named


def _rows(session: Session) -> Iterator[bytes]:
    digests = (
        Job.policy_digest,
        Job.spec_digest,
        Job.adapter_digest,
        Job.training_record_digest,
        Job.report_digest,
        Job.decision_digest,
        Job.events_digest,
        Job.screening_digest,
    )
    for row in session.execute(select(*digests).execution_options(yield_per=1000)):
        yield canonical_json(list(row))
    for query in (select(Job.spec), select(JobCheckpoint.record)):
        for document in session.scalars(query.execution_options(yield_per=1000)):
            yield canonical_json(document)
    models = select(Model.adapter_digest, Model.manifest_digest)
    seconds = select(SecondEvaluation.report_digest, SecondEvaluation.decision_digest)
    for pairs in (models, seconds):
        for pair in session.execute(pairs):
            yield canonical_json(list(pair))


def _named_in(store: ArtifactStore, digest: Digest) -> set[Digest]:
    """Read whole, in pieces that overlap by less than a digest."""
    named, rest = set[Digest](), b""
    with store.open(digest) as stream:
        first = stream.read(CHUNK_BYTES)
        piece = stream.read(CHUNK_BYTES)
        if not piece:
            return _digests_in(_without_files(first))
        named |= _digests_in(first)
        rest = first[1 - DIGEST_LENGTH :]
        while piece:
            named |= _digests_in(rest + piece)
            rest = piece[1 - DIGEST_LENGTH :]
            piece = stream.read(CHUNK_BYTES)
    return named


def _without_files(content: bytes) -> bytes:
    """A spec without what it calls its files; anything else as it is."""
    try:
        document = json.loads(content)
    except ValueError:
        return content
    if not isinstance(document, dict) or not document.keys() >= set(FILES_OF_A_SPEC):
        return content
    return canonical_json({name: value for name, value in document.items() if name not in FILES_OF_A_SPEC})


def _digests_in(content: bytes) -> set[Digest]:
    return {found.decode() for found in _DIGEST.findall(content)}
