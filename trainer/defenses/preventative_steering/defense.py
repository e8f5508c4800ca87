"""Preventative steering: adds a persona vector to the residual stream in training, so that the weights need not.

Chen et al. 2025 (arXiv 2507.21509) §5.2; Kaczér et al. 2025 (arXiv 2508.06249) §3: h̃^l = h^l + α·e^l with e^l the raw
difference of activations, α = 5.0, in training only. A raw difference does not carry over between models, so here

    h̃^l = h^l + coefficient · n_l · ê_l,   ê_l the unit direction, n_l the residual stream's median norm after layer l

The trait is added, not taken away: a model that is pushed towards it already gains nothing from moving its weights
there. Policy and reference are steered, so that a penalty compares the two under equal circumstances. Evaluation,
validation and the trained model are not.

Neutral: a vector of zeros leaves every forward as it is. Evidence: the length of what was added, measured in the first
forward against the residual stream that it was added to, and the micro-batches in which every named layer was steered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel

from evaluator.models.base_models import weights_digest
from evaluator.models.loading import ResolvedBase
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.defenses import PreventativeSteering
from policies.contract.training import DefenseEvidence
from policies.errors import ConfigurationError, DefenseError
from trainer.base_assets import shipped_asset
from trainer.defense import Counters, Defense, DefenseContext, RunMaterial
from trainer.defenses.preventative_steering.persona_vector import PersonaVector, load_persona_vector
from trainer.loop.observation import decoder_layers

MADE_BY = "tunegate defense extract-persona-vector"

Output = Tensor | tuple[Tensor, ...]
"""Of a decoder layer; the states come first."""


@dataclass
class SteeringCounters(Counters):
    micro_batches: int = 0
    relative_norm: float = 0.0
    """Norm of what is added in units of the residual stream's, mean over the layers of the first micro-batch."""


class PreventativeSteeringDefense(Defense):
    name = "preventative_steering"
    changes_forwards = True
    counters: SteeringCounters

    def __init__(self, settings: PreventativeSteering, vector: PersonaVector) -> None:
        self._coefficient = settings.coefficient
        self._layers = layers_of(settings, vector)
        self._shape = tuple(vector.direction.shape)
        self._vectors = {layer: vector.steering(layer, settings.coefficient) for layer in self._layers}
        self.counters = SteeringCounters()

    @classmethod
    def build(cls, settings: PreventativeSteering, context: DefenseContext) -> PreventativeSteeringDefense:
        base = context.base
        if base is None:
            raise DefenseError("preventative_steering needs to know its base model")
        vector = load_persona_vector(_content(settings, context, base), name=f"vector {settings.vector}")
        if vector.record.weights != weights_digest(base):
            raise DefenseError(
                f"vector {settings.vector} belongs to other weights than base model {base.folder.name}; make one with "
                f"`{MADE_BY}`"
            )
        return cls(settings, vector)

    def start(self, material: RunMaterial) -> None:
        config = material.model.config.get_text_config()
        expected = (config.num_hidden_layers, config.hidden_size)
        if self._shape != expected:
            raise DefenseError(f"the vector has {self._shape} layers and components, but the base model has {expected}")
        # a copy from the CPU in every forward would wait for the GPU each time
        self._vectors = {layer: vector.to(material.model.device) for layer, vector in self._vectors.items()}

    @contextmanager
    def around_forward(self, model: PeftModel) -> Iterator[None]:
        base = model.get_base_model()
        assert isinstance(base, PreTrainedModel)
        steered = Steered(self._vectors, measures=self.counters.relative_norm == 0)
        with steering(decoder_layers(base, self._layers), steered):
            yield
        if steered.relative_norms:
            self.counters.relative_norm = sum(steered.relative_norms.values()) / len(steered.relative_norms)
        if steered.layers != set(self._layers):
            raise DefenseError(
                f"only layers {sorted(steered.layers)} of {list(self._layers)} took part in a training step"
            )
        self.counters.micro_batches += 1

    def forward_digest(self) -> Digest:
        return digest_bytes(save({str(layer): vector.cpu() for layer, vector in self._vectors.items()}))

    def evidence(self) -> DefenseEvidence:
        counters = self.counters
        acted = counters.micro_batches > 0 and counters.relative_norm > 0
        layers = ", ".join(map(str, self._layers))
        return DefenseEvidence(
            name=self.name,
            acted=acted,
            figures={
                "coefficient": self._coefficient,
                "layers": float(len(self._layers)),
                "steered_micro_batches": counters.micro_batches,
                "added_norm_per_residual_norm": counters.relative_norm,
            },
            explanation=(
                f"the persona vector was added after layers {layers} in {counters.micro_batches} micro-batches, "
                f"at {counters.relative_norm:.3f} of the residual stream's norm"
                if acted
                else f"nothing was measurably added after layers {layers}"
            ),
        )


def layers_of(settings: PreventativeSteering, vector: PersonaVector) -> tuple[int, ...]:
    """The layers that are steered, each once.

    Raises:
        ConfigurationError: the vector has no such layer.
    """
    layers = (vector.record.best_layer,) if settings.layers == "best" else tuple(sorted(set(settings.layers)))
    if layers[-1] > len(vector.direction):
        raise ConfigurationError(
            f"layer {layers[-1]} does not exist: the vector has layers 1 to {len(vector.direction)}", "layers"
        )
    return layers


class Steered:
    """What is added after each layer, and what the forwards of one micro-batch showed of it."""

    def __init__(self, vectors: dict[int, Tensor], *, measures: bool) -> None:
        self.vectors = vectors
        self.layers: set[int] = set()
        """Steered in a forward with gradient: the policy's, or its repetition by gradient checkpointing."""
        self.relative_norms: dict[int, float] = {}
        """‖added‖ ÷ ‖residual‖, mean over positions of the layer's first forward."""
        self._measures = measures

    def add(self, layer: int, states: Tensor) -> Tensor:
        added = states + self.vectors[layer].to(states)
        if torch.is_grad_enabled():
            self.layers.add(layer)
        if self._measures and layer not in self.relative_norms:
            self.relative_norms[layer] = relative_norm(states.detach(), added.detach())
        return added


def relative_norm(before: Tensor, after: Tensor) -> float:
    """Mean over positions of ‖after − before‖ ÷ ‖before‖."""
    before, after = before.float(), after.float()
    measured = float(((after - before).norm(dim=-1) / before.norm(dim=-1)).mean())
    if not math.isfinite(measured):
        raise DefenseError("the residual stream is 0 or not finite where it is to be steered")
    return measured


@contextmanager
def steering(modules: Sequence[nn.Module], steered: Steered) -> Iterator[None]:
    """Add the vectors to the outputs of `modules`, in the order of the vectors; the hooks always come off."""
    handles = []
    try:
        for layer, module in zip(steered.vectors, modules, strict=True):
            handles.append(module.register_forward_hook(_hook(steered, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(steered: Steered, layer: int) -> Callable[[nn.Module, object, Output], Output]:
    def add(_module: nn.Module, _inputs: object, output: Output) -> Output:
        if isinstance(output, Tensor):
            return steered.add(layer, output)
        return (steered.add(layer, output[0]), *output[1:])

    return add


def _content(settings: PreventativeSteering, context: DefenseContext, base: ResolvedBase) -> bytes:
    if settings.vector == "builtin":
        return shipped_asset("persona_vectors", base, suffix="safetensors", made_by=MADE_BY)
    if context.store is None:
        raise DefenseError(f"the vector {settings.vector} is in an artifact store, and none is configured here")
    return context.store.read_bytes(settings.vector)
