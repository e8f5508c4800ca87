"""The operator's policies and base models by name and digest, read once when a process of the gateway starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, Self

from gateway.settings import GatewaySettings
from policies.contract.artifacts import Digest
from policies.contract.calibration import Recipe
from policies.contract.calibration_bindings import SUPERVISED
from policies.contract.jobs import BaseModelSpec, Method
from policies.contract.store import ArtifactStore
from policies.documents.loader import available_documents
from policies.documents.schema import BaseModelDocument, CalibrationRecord, PolicyDocument, ReleasePolicy
from policies.errors import ConfigurationError, PolicyError


class Evaluated(NamedTuple):
    """How an adapter of a base model was evaluated last."""

    engine: str
    dtype: str
    at: float
    """Unix seconds."""


class KnownEvaluation(NamedTuple):
    """What is known of how a base model's adapters are evaluated before one is."""

    text: Digest
    """What the base model reads text by."""
    base: Digest | None = None
    """Of its folder."""
    last: Evaluated | None = None


class PolicyCatalog:
    """Release policies by their name, base models by the name that the API calls them."""

    def __init__(self, documents: Iterable[PolicyDocument]) -> None:
        self.release_policies: dict[str, ReleasePolicy] = {}
        self.base_models: dict[str, BaseModelDocument] = {}
        self.calibrations: list[CalibrationRecord] = []
        for document in documents:
            if isinstance(document, ReleasePolicy):
                self.release_policies[document.metadata.name] = document
            elif isinstance(document, CalibrationRecord):
                self.calibrations.append(document)
            elif document.spec.name in self.base_models:
                other = self.base_models[document.spec.name].metadata.name
                raise PolicyError(f"{other} and {document.metadata.name} both define base model {document.spec.name!r}")
            else:
                self.base_models[document.spec.name] = document

    @classmethod
    def load(cls, settings: GatewaySettings) -> Self:
        """The shipped presets, and the documents of `settings.policy_dir` in place of those of their name."""
        folder = settings.policy_dir
        if folder is not None and not folder.is_dir():
            raise ConfigurationError(f"TUNEGATE_POLICY_DIR is not a folder: {folder}", "policy_dir")
        catalog = cls(available_documents(folder))
        catalog.release_policy(settings.default_policy)
        return catalog

    def release_policy(self, name: str) -> ReleasePolicy:
        try:
            return self.release_policies[name]
        except KeyError:
            known = ", ".join(sorted(self.release_policies)) or "none"
            raise PolicyError(f"no release policy named {name!r}; known: {known}", "policy") from None

    def require_evaluators(self, settings: GatewaySettings) -> None:
        """Raises `ConfigurationError` where a policy demands an evaluator that could never come in."""
        for name, policy in self.release_policies.items():
            if policy.spec.evaluators > 1 and settings.confirmer_token is None:
                message = (
                    f"policy {name} has evaluators: {policy.spec.evaluators}, which needs TUNEGATE_CONFIRMER_TOKEN"
                )
                raise ConfigurationError(message, "confirmer_token")

    def base_model(self, name: str) -> BaseModelDocument:
        """The base model that the API calls `name`."""
        try:
            return self.base_models[name]
        except KeyError:
            known = ", ".join(sorted(self.base_models)) or "none"
            raise PolicyError(f"no base model named {name!r}; known: {known}", "model") from None

    def calibration(
        self, policy: ReleasePolicy, base_model: BaseModelSpec, *, known: KnownEvaluation, method: Method
    ) -> CalibrationRecord | None:
        """The newest calibration of the base model under the policy's recipe that holds for all that is known.

        Where none does, the one that differs in least, so that the verdict can say in what. Whether it holds for all
        else that an evaluation is made with, the gate sees in the report.
        """
        recipe = Recipe.of(base_model, policy.spec.defenses_for(method), method).digest
        fitting = [
            record
            for record in self.calibrations
            if record.spec.model == base_model.name
            and (record.spec.bound_to.recipe, record.spec.bound_to.text) == (recipe, known.text)
        ]
        return max(
            fitting,
            key=lambda record: (-_n_differences(record, policy, known), record.spec.finished_at),
            default=None,
        )

    def calibrations_in_force(
        self, known: Mapping[str, KnownEvaluation]
    ) -> Iterator[tuple[ReleasePolicy, CalibrationRecord]]:
        """Each policy with the calibration of each base model that its supervised jobs pin, if it holds for them.

        Args:
            known: by the base model's name. Of others no job can be created.
        """
        for policy in self.release_policies.values():
            for name, each in known.items():
                record = self.calibration(policy, self.base_model(name).spec, known=each, method=SUPERVISED)
                if record is not None and not _n_differences(record, policy, each):
                    yield policy, record

    def store_policies(self, store: ArtifactStore) -> None:
        """Keep every policy as an artifact, so that a decision can be replayed after its policy was replaced."""
        for policy in self.release_policies.values():
            if not store.exists(policy.digest):
                store.put_record(policy)


def _n_differences(record: CalibrationRecord, policy: ReleasePolicy, known: KnownEvaluation) -> int:
    """In how much the record is about something else. An evaluation before it says nothing of those to come."""
    bound_to, last = record.spec.bound_to, known.last
    differing = [bound_to.suite != policy.spec.suite.digest, bound_to.candidates != policy.spec.n_candidates]
    if known.base is not None:
        differing.append(bound_to.base_model != known.base)
    if last is not None and last.at >= record.spec.finished_at:
        differing += [bound_to.engine != last.engine, bound_to.dtype != last.dtype]
    return sum(differing)


@lru_cache(maxsize=256)
def policy_of(store: ArtifactStore, digest: Digest) -> ReleasePolicy:
    """The policy that a job is judged by: the one whose digest was fixed at its creation, still in force or not.

    The content of a digest never changes, so it is read once per process.
    """
    return store.get_record(digest, ReleasePolicy)


@lru_cache(maxsize=256)
def calibration_of(store: ArtifactStore, digest: Digest | None) -> CalibrationRecord | None:
    """The calibration that was pinned when a job was created, still among the operator's documents or not."""
    return None if digest is None else store.get_record(digest, CalibrationRecord)
