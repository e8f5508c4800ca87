"""The policy that a job is judged by: the one whose digest was fixed at its creation, still in force or not."""

from __future__ import annotations

from functools import lru_cache

from gateway.dependencies import Services
from policies.contract.artifacts import ArtifactStore, Digest
from policies.schema import ReleasePolicy


def policy_of(services: Services, digest: Digest) -> ReleasePolicy:
    return _stored_policy(services.store, digest)


@lru_cache(maxsize=256)
def _stored_policy(store: ArtifactStore, digest: Digest) -> ReleasePolicy:
    """Content of a digest never changes, so it is read once per process."""
    return store.get_record(digest, ReleasePolicy)
