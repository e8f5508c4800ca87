"""Defenses that walk a model's layers or weights hold one of them at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from policies.contract.defenses import Ldifs, SafeLora
from policies.contract.jobs import JobSpec
from tests.trainer.conftest import Run
from tests.trainer.guarded import prepared, randomise
from trainer.defenses.ldifs import LdifsDefense
from trainer.training_step import MicroBatch

MakeSpec = Callable[..., JobSpec]


class LargeTensors(TorchDispatchMode):
    """Sees all tensors of at least so many elements that operations make, and counts those that live."""

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self._n_elements = n_elements
        self._seen: list[weakref.ref[Tensor]] = []
        self.most_at_once = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.numel() >= self._n_elements:
                self._seen.append(weakref.ref(each))
        self.most_at_once = max(self.most_at_once, self.alive())
        return result

    def alive(self) -> int:
        """Views of one tensor count once."""
        tensors = [tensor for reference in self._seen if (tensor := reference()) is not None]
        return len({tensor.untyped_storage().data_ptr() for tensor in tensors})


def test_safe_lora_holds_the_difference_of_one_module_at_a_time(make_spec: MakeSpec, run: Run) -> None:
    """While the difference is made, the module's weight in both models lives as well: 3 tensors, and never another
    module's. The smallest of the 14 weights is k_proj's, 32 × 64; B, A and C·B have 4 × 128 elements at most.
    """
    trainer = prepared(run, make_spec(SafeLora(threshold=1)))
    randomise(trainer.adapted_model)
    (defense,) = trainer.defenses
    with LargeTensors(32 * 64) as large:
        defense.project_adapter(trainer.adapted_model)
    assert defense.evidence().figures["projected_modules"] == 14
    assert large.most_at_once == 3
    assert large.alive() == 0


class Watched(LdifsDefense):
    """Counts what each compared layer leaves behind."""

    def __init__(self, settings: Ldifs) -> None:
        super().__init__(settings)
        self.left: list[int] = []
        self.references_alive: list[int] = []
        self._references: list[weakref.ref[Tensor]] = []
        self._large: LargeTensors | None = None

    def compare_layer(self, micro_batch: MicroBatch, layer: int, *, policy: Tensor, reference: Tensor) -> None:
        self.references_alive.append(sum(each() is not None for each in self._references))
        self._references.append(weakref.ref(reference))
        n_tokens, width = int(micro_batch.attention_mask.sum()), policy.shape[-1]
        self._large = self._large or LargeTensors(n_tokens * width)
        with self._large as large:
            super().compare_layer(micro_batch, layer, policy=policy, reference=reference)
        self.left.append(large.alive())


def test_ldifs_keeps_one_gradient_a_layer_and_no_features(make_spec: MakeSpec, run: Run) -> None:
    """After each of a step's two layers there is one more tensor of [tokens, hidden], the gradient for the backward;
    the features of layer 1 are gone when layer 2 comes."""
    settings = Ldifs(layers=(1, 2))
    trainer, watched = prepared(run, make_spec(settings)), Watched(settings)
    trainer.defenses[:] = [watched]
    trainer.args.max_steps = 1
    trainer.train()
    assert watched.left == [1, 2]
    assert watched.references_alive == [0, 0]
