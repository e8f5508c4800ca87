"""Preventative steering: exactly the vector is added, in training alone, and the hooks always come off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from evaluator.models.base_models import weights_digest
from evaluator.models.loading import ResolvedBase, load_base
from policies.contract.defenses import KlPenalty, PreventativeSteering
from policies.contract.jobs import JobSpec, LoraSettings
from policies.contract.store import ArtifactStore
from policies.errors import ConfigurationError, DefenseError
from tests.trainer.conftest import Run
from trainer.defense import DefenseContext
from trainer.defenses.preventative_steering.defense import PreventativeSteeringDefense, Steered, relative_norm, steering
from trainer.defenses.preventative_steering.persona_vector import (
    ExtractionSettings,
    LayerFigures,
    PersonaVector,
    PersonaVectorRecord,
    save_persona_vector,
)
from trainer.lora import attach_lora

N_LAYERS, HIDDEN = 2, 64
IDS = torch.tensor([[5, 6, 7, 8]])


def vector_of(base: ResolvedBase, *, hidden: int = HIDDEN, weights: str | None = None) -> PersonaVector:
    """A random vector for the tiny model; its residual norms are 4 and 8, its best layer is 1."""
    record = PersonaVectorRecord(
        trait="evil",
        weights=weights or weights_digest(base),
        prompts="sha256:" + "0" * 64,
        best_layer=1,
        layers=(LayerFigures(auroc=0.9, separation=2.0, half_cosine=0.8),) * N_LAYERS,
        n_positive=16,
        n_negative=16,
        seed=0,
        settings=ExtractionSettings(),
        dtype="float32",
        versions={"torch": "2"},
    )
    generator = torch.Generator().manual_seed(7)
    direction = nn.functional.normalize(torch.randn(N_LAYERS, hidden, generator=generator), dim=1)
    return PersonaVector(record, direction, torch.tensor([4.0, 8.0]))


@pytest.fixture
def base(tiny_base: Path) -> ResolvedBase:
    return ResolvedBase(tiny_base, "sha256:" + "1" * 64)


@pytest.fixture
def model(base: ResolvedBase) -> PeftModel:
    loaded = load_base(base, torch.float32)
    return attach_lora(loaded.model, LoraSettings(rank=4, alpha=8), seed=0, name="tiny")  # type: ignore[arg-type]  # a plain model


def llama_layers(model: PeftModel) -> list[nn.Module]:
    layers = model.get_base_model().get_submodule("model.layers")
    assert isinstance(layers, nn.ModuleList)
    return list(layers)


def stream(model: PeftModel, layer: int) -> Tensor:
    """The residual stream after a layer, counted from 1, in a forward with gradient."""
    seen: list[Tensor] = []
    handle = llama_layers(model)[layer - 1].register_forward_hook(lambda _m, _i, output: seen.append(output))
    model(input_ids=IDS)
    handle.remove()
    return seen[0].detach()


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_exactly_coefficient_times_norm_times_direction_is_added(base: ResolvedBase, model: PeftModel) -> None:
    """0.25 · 4 · ê_1 at every position: a vector of length 1."""
    vector = vector_of(base)
    plain = stream(model, 1)
    with PreventativeSteeringDefense(PreventativeSteering(coefficient=0.25), vector).around_forward(model):
        steered = stream(model, 1)
    assert torch.equal(steered, plain + vector.direction[0])


def test_named_layers_are_steered_each_with_its_own_norm(base: ResolvedBase, model: PeftModel) -> None:
    """Layer 2 gets 0.5 · 8 · ê_2 on top of what layer 1's vector made of its input."""
    vector = vector_of(base)
    defense = PreventativeSteeringDefense(PreventativeSteering(coefficient=0.5, layers=(2, 1, 2)), vector)
    with defense.around_forward(model):
        both = stream(model, 2)
    with PreventativeSteeringDefense(PreventativeSteering(coefficient=0.5), vector).around_forward(model):
        first = stream(model, 2)
    torch.testing.assert_close(both, first + 4 * vector.direction[1])
    assert defense.evidence().figures["layers"] == 2


def test_a_vector_of_zeros_leaves_the_forward_as_it_is(model: PeftModel) -> None:
    layers = llama_layers(model)
    plain = model(input_ids=IDS).logits
    with steering(layers, Steered({1: torch.zeros(HIDDEN), 2: torch.zeros(HIDDEN)}, measures=False)):
        assert torch.equal(model(input_ids=IDS).logits, plain)


def test_the_reference_is_steered_as_the_policy_is(base: ResolvedBase, model: PeftModel) -> None:
    """A fresh adapter is the identity, so that both are equal under the same vector."""
    with PreventativeSteeringDefense(PreventativeSteering(), vector_of(base)).around_forward(model):
        policy = stream(model, 2)
        with torch.no_grad(), model.disable_adapter():
            assert torch.equal(stream(model, 2), policy)


def test_the_output_of_a_layer_may_be_a_tuple() -> None:
    class Layer(nn.Module):
        def forward(self, states: Tensor) -> tuple[Tensor, str]:
            return states, "cache"

    layer = Layer()
    with steering([layer], Steered({1: torch.ones(3)}, measures=False)):
        states, rest = layer(torch.zeros(2, 3))
    assert torch.equal(states, torch.ones(2, 3))
    assert rest == "cache"


def test_the_vector_takes_the_format_of_the_residual_stream() -> None:
    assert Steered({1: torch.ones(3)}, measures=False).add(1, torch.zeros(3, dtype=torch.bfloat16)).dtype == (
        torch.bfloat16
    )


def test_hooks_come_off_after_an_exception_and_the_micro_batch_does_not_count(
    base: ResolvedBase, model: PeftModel
) -> None:
    before = hooks(model)
    defense = PreventativeSteeringDefense(PreventativeSteering(), vector_of(base))
    with pytest.raises(RuntimeError), defense.around_forward(model):
        raise RuntimeError(model(input_ids=IDS))
    assert hooks(model) == before
    assert defense.counters.micro_batches == 0
    assert not defense.evidence().acted


def test_a_step_in_which_the_layer_did_not_run_is_an_error(base: ResolvedBase, model: PeftModel) -> None:
    before = hooks(model)
    defense = PreventativeSteeringDefense(PreventativeSteering(), vector_of(base))
    with pytest.raises(DefenseError, match=r"layers \[\] of \[1\]"), defense.around_forward(model):
        pass
    assert hooks(model) == before


def test_a_layer_that_the_vector_lacks_is_refused(base: ResolvedBase) -> None:
    with pytest.raises(ConfigurationError, match="layer 3 does not exist"):
        PreventativeSteeringDefense(PreventativeSteering(layers=(1, 3)), vector_of(base))


def test_gradient_checkpointing_changes_no_gradient_and_counts_one_micro_batch(
    base: ResolvedBase, model: PeftModel
) -> None:
    """The backward runs the layers, and with them the hook, a second time."""
    gradients = []
    for checkpoints in (False, True):
        model.zero_grad()
        model.train()
        if checkpoints:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable()
        defense = PreventativeSteeringDefense(PreventativeSteering(coefficient=1.0), vector_of(base))
        with defense.around_forward(model):
            model(input_ids=IDS, labels=IDS).loss.backward()
        assert defense.counters.micro_batches == 1
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert gradients[0]
    for plain, repeated in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, repeated)


def test_the_relative_norm_is_measured_on_the_stream_itself() -> None:
    """Streams of length 5 and 10 that are moved by length 1: (1/5 + 1/10) / 2."""
    before = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
    assert relative_norm(before, before + torch.tensor([1.0, 0.0])) == pytest.approx(0.15)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_stream_that_is_zero_or_not_finite_is_an_error(value: float) -> None:
    states = torch.full((2, 2), value)
    with pytest.raises(DefenseError):
        relative_norm(states, states + 1)


def test_a_vector_for_other_weights_is_refused(base: ResolvedBase, tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    digest = store.put_bytes(save_persona_vector(vector_of(base, weights="sha256:" + "f" * 64)))
    with pytest.raises(DefenseError, match="other weights"):
        PreventativeSteeringDefense.build(PreventativeSteering(vector=digest), DefenseContext(0, store, base))


def test_a_model_without_a_shipped_vector_is_told_the_command(base: ResolvedBase) -> None:
    with pytest.raises(DefenseError, match="tunegate defense extract-persona-vector"):
        PreventativeSteeringDefense.build(PreventativeSteering(), DefenseContext(0, None, base))


def test_a_digest_without_a_store_is_refused(base: ResolvedBase) -> None:
    settings = PreventativeSteering(vector="sha256:" + "a" * 64)
    with pytest.raises(DefenseError, match="none is configured here"):
        PreventativeSteeringDefense.build(settings, DefenseContext(0, None, base))


def test_a_vector_of_another_width_fails_the_run(
    base: ResolvedBase, make_spec: Callable[..., JobSpec], run: Run
) -> None:
    digest = run.store.put_bytes(save_persona_vector(vector_of(base, hidden=HIDDEN + 1)))
    with pytest.raises(DefenseError, match="65"):
        run.train(make_spec(PreventativeSteering(vector=digest)))


def test_a_run_is_steered_in_every_micro_batch_and_its_adapter_is_another(
    base: ResolvedBase, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    """Ten steps of one micro-batch each; the reference of a penalty and the validation are not counted."""
    plain, steered = Run(tmp_path / "plain"), Run(tmp_path / "steered")
    digest = steered.store.put_bytes(save_persona_vector(vector_of(base)))
    plain.train(make_spec(KlPenalty()))
    evidence = steered.train(make_spec(KlPenalty(), PreventativeSteering(vector=digest))).evidence[1]
    assert evidence.acted
    assert evidence.figures["steered_micro_batches"] == 10
    assert evidence.figures["added_norm_per_residual_norm"] > 0
    adapters = [load_file(each.folder / "adapter" / "adapter_model.safetensors") for each in (plain, steered)]
    assert any(not torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
