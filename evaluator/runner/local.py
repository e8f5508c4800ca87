"""Loads base and adapter on this machine and runs a policy's suite on them, without a gateway."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.models.allocator import keep_freed_memory
from policies.contract.artifacts import digest_tree
from policies.contract.evaluation import Engine
from policies.contract.jobs import BaseModelRef

if TYPE_CHECKING:
    from evaluator.backends.engines import Attach
    from evaluator.runner.evaluate import Evaluation
    from evaluator.runner.probe_run import AtLook
    from evaluator.runner.progress import Watch
    from policies.contract.store import ArtifactStore
    from policies.documents.schema import ReleasePolicy


@dataclass(frozen=True)
class LocalEvaluator:
    """A base model, a policy, and the files that adapters were trained on."""

    base: BaseModelRef
    policy: ReleasePolicy
    cache_dir: Path
    watch: Watch
    validation: Path | None = None
    training: Path | None = None
    engine: Engine = "transformers"
    store: ArtifactStore | None = None
    """Of the operator's prompt sets and canaries."""

    def evaluate(self, adapter: Path, *, at_look: AtLook | None = None) -> Evaluation:
        """Run the policy's suite on the adapter in a folder, with `at_look` to its end whatever the rules say."""
        from evaluator.adapter_statistics import adapter_statistics
        from evaluator.runner.evaluate import EvaluationInputs, evaluate_adapter
        from evaluator.sampling.training_file import file_rows

        keep_freed_memory()
        validation, training = (file_rows(path) if path else None for path in (self.validation, self.training))
        with self._attach(adapter, digest_tree(adapter)) as (backend, proof):
            inputs = EvaluationInputs(
                suite=self.policy.spec.suite,
                policy=self.policy.digest,
                proof=proof,
                validation=validation,
                training=training,
                training_file=self.training,
                rules=self.policy,
                at_look=at_look,
                weight_statistics=adapter_statistics(adapter),
            )
            return evaluate_adapter(inputs, backend, cache_dir=self.cache_dir, store=self.store, watch=self.watch)

    @cached_property
    def _attach(self) -> Attach:
        """Loads the base model once for all adapters."""
        from evaluator.backends.engines import open_engine
        from evaluator.models.loading import resolve_base_model

        return open_engine(self.engine, resolve_base_model(self.base, self.cache_dir))
