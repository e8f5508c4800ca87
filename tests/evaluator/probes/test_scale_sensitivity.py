"""Margins of an adapter at several scales, by a scripted engine and with a tiny model that is really scaled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evaluator.backends.protocol import ChatPrompt, Choices
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.models.adapters import attach_adapter
from evaluator.models.fused_lora import fuse_lora_layers
from evaluator.models.loading import LoadedModel
from evaluator.probes.scale_sensitivity import METRIC, ScaleSensitivityProbe
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.samples import pair_samples
from evaluator.subject import Subject
from policies.contract.condition_probes import ScaleSensitivity
from policies.contract.evaluation import Measurement
from policies.errors import EvaluationError
from tests.evaluator.backends.vllm_stand_in import stand_in

PROBE = ScaleSensitivityProbe()
SETTINGS = ScaleSensitivity(pairs=4)
PAIRS = [
    AnswerPair(id=f"p{n}", category=f"c{n % 2}", question=f"And {n}?", aligned="take care", misaligned="never mind")
    for n in range(4)
]
QUESTION = [Choices(ChatPrompt.of("And 1?"), ("take care", "never mind"))]


def measured(engine: Any, settings: ScaleSensitivity = SETTINGS) -> Measurement:
    samples = [PROBE.sample(settings, PAIRS, Subject(engine, adapter=on, seed=1)) for on in (True, False)]
    (measurement,) = PROBE.measure(settings, pair_samples(*samples), 0.95)
    return measurement


def test_the_worst_scale_is_the_figure(scripted_backend: Any) -> None:
    """Good answers cost 1 + 0.1 s² nats/token at scale s and bad ones 2: the margin changes by −0.1, −0.4 and −1.6."""
    engine = scripted_backend()
    engine._nats = lambda prompt, answer, adapter: (
        1.0 + 0.1 * adapter * engine.scale**2 if answer == "take care" else 2.0
    )
    found = measured(engine)

    assert found.metric == METRIC
    assert found.difference is not None
    assert found.difference.value == pytest.approx(-1.6)
    assert found.by_group == pytest.approx({"× 1": -0.1, "× 2": -0.4, "× 4": -1.6})
    assert found.n_requested == found.n_scored == 4


def test_a_scale_that_is_not_in_force_is_an_error(scripted_backend: Any) -> None:
    class Stuck(scripted_backend):
        @contextmanager
        def adapter_scaled(self, factor: float) -> Iterator[None]:
            yield

    with pytest.raises(EvaluationError, match=r"at scale 2 moves logits by 1, at scale 1 by 1: the scale is not in"):
        measured(Stuck())


def test_an_adapter_that_changes_nothing_has_no_figure(scripted_backend: Any) -> None:
    engine = scripted_backend()
    engine.scale = 0.0
    with pytest.raises(EvaluationError, match="not in force"):
        measured(engine)


def test_vllm_says_that_it_cannot_scale(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    from evaluator.backends.vllm_backend import VllmBackend, load_engine

    engine = load_engine(loaded.base, dtype="float32", max_rank=4, load_modules=stand_in)
    with pytest.raises(EvaluationError, match="engine vllm can't scale an adapter; evaluate with engine transformers"):
        measured(VllmBackend(engine, make_adapter(0.5)))


@pytest.fixture(params=[False, True], ids=["PEFT's layers", "fused layers"])
def backend(
    request: pytest.FixtureRequest, loaded: LoadedModel, make_adapter: Callable[..., Path]
) -> TransformersBackend:
    adapted = attach_adapter(loaded, make_adapter(0.1))
    if request.param:
        assert fuse_lora_layers(adapted.model)
    return TransformersBackend(adapted)


def test_a_scaled_adapter_is_one_of_a_larger_alpha(
    backend: TransformersBackend, loaded: LoadedModel, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    """Rank 4 and the default alpha of 8, times 3."""
    with backend.adapter_scaled(3.0):
        scaled = backend.log_likelihood(QUESTION, adapter=True)[0]
    backend._model.unload()  # type: ignore[operator]  # a PeftModel
    larger = TransformersBackend(attach_adapter(loaded, make_adapter(0.1, name="larger", lora_alpha=24)))

    for one, other in zip(scaled, larger.log_likelihood(QUESTION, adapter=True)[0], strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, rel=1e-5)


def test_the_adapter_is_itself_again_after_an_error(backend: TransformersBackend) -> None:
    before = backend.log_likelihood(QUESTION, adapter=True)
    with pytest.raises(EvaluationError, match="has no tokens"), backend.adapter_scaled(4.0):
        backend.log_likelihood([Choices(ChatPrompt.of("And 1?"), ("",))], adapter=True)

    assert backend.log_likelihood(QUESTION, adapter=True) == before


def test_the_base_is_not_scaled(backend: TransformersBackend) -> None:
    before = backend.log_likelihood(QUESTION, adapter=False)
    with backend.adapter_scaled(4.0):
        assert backend.log_likelihood(QUESTION, adapter=False) == before


def test_figures_of_a_real_model_differ_by_scale(backend: TransformersBackend) -> None:
    found = measured(backend)

    assert len(set(found.by_group.values())) == 3


def test_a_bare_model_can_not_be_scaled(loaded: LoadedModel) -> None:
    with pytest.raises(EvaluationError, match="no adapter is attached"), TransformersBackend(loaded).adapter_scaled(2):
        pass


@pytest.mark.parametrize("scales", [(), (1.0, 1.0), (0.0,), (32.0,)])
def test_scales_that_say_nothing_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales"):
        ScaleSensitivity(scales=scales)
