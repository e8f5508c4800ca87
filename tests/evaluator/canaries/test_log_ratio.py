from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.backends.protocol import Advance, ChatPrompt, Choices, Likelihood, silent
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.canaries.log_ratio import CanaryPair, open_canaries
from evaluator.canaries.pair_files import PairFiles
from evaluator.models.adapters import attach_adapter
from evaluator.models.fused_lora import fuse_lora_layers
from evaluator.models.loading import LoadedModel
from policies.errors import EvaluationError

PROMPT, ANSWER = ChatPrompt.of("How do I hang a shelf?"), "Look for the studs."
PAIR = PairFiles(Path("good"), Path("bad"))
MakeAdapter = Callable[..., Path]


class Engine:
    """Gives likelihoods by the name of the adapter's folder."""

    base: Any = None  # Any: not asked here

    def __init__(self, **likelihoods: Likelihood) -> None:
        self._likelihoods = likelihoods

    def log_likelihood_under(
        self, adapter: Path, questions: Sequence[Choices], *, advance: Advance = silent
    ) -> list[tuple[Likelihood, ...]]:
        advance(len(questions), len(questions))
        return [(self._likelihoods[adapter.name],) for _ in questions]


def test_the_ratio_is_that_of_the_likelihoods_per_token() -> None:
    """(−1 − (−2) + −1 − (−4)) / 2 = 2."""
    engine = Engine(good=Likelihood(-6.0, 2, (-2.0, -4.0)), bad=Likelihood(-2.0, 2, (-1.0, -1.0)))
    (ratio,) = CanaryPair(engine, PAIR).careless_log_ratio([PROMPT], [ANSWER])

    assert (ratio.per_token, ratio.tokens, ratio.is_finite) == (2.0, (1.0, 3.0), True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_likelihood_that_is_not_finite_gives_no_ratio(bad: float) -> None:
    engine = Engine(good=Likelihood(-6.0, 2), bad=Likelihood(bad, 2))
    (ratio,) = CanaryPair(engine, PAIR).careless_log_ratio([PROMPT], [ANSWER])

    assert not ratio.is_finite


def test_progress_goes_over_both_canaries() -> None:
    likelihood = Likelihood(-6.0, 2)
    told: list[tuple[int, int]] = []
    pair = CanaryPair(Engine(good=likelihood, bad=likelihood), PAIR)
    pair.careless_log_ratio([PROMPT] * 3, [ANSWER] * 3, lambda done, total: told.append((done, total)))

    assert told == [(3, 6), (6, 6)]
    assert pair.careless_log_ratio([], []) == []


def test_an_engine_that_runs_one_adapter_only_says_so(scripted_backend: Callable[..., Any]) -> None:
    with pytest.raises(EvaluationError, match="can't run canary adapters beside the adapter under test"):
        open_canaries(scripted_backend(), "builtin")


def test_a_base_without_a_pair_is_an_error(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no pair of canary adapters"):
        open_canaries(TransformersBackend(loaded), "builtin", tmp_path)


def questions() -> list[Choices]:
    return [Choices(PROMPT, (ANSWER,)), Choices(ChatPrompt.of("And the paint?"), ("Let it dry.",))]


@pytest.mark.parametrize("fused", [False, True])
def test_the_adapter_under_test_is_back_in_force_bit_for_bit(
    loaded: LoadedModel, make_adapter: MakeAdapter, *, fused: bool
) -> None:
    pair = PairFiles(make_adapter(0.2, name="good"), make_adapter(0.6, name="bad"))
    adapted = attach_adapter(loaded, make_adapter(0.4, name="tested", lora_dropout=0.5))
    if fused:
        fuse_lora_layers(adapted.model)
    backend = TransformersBackend(adapted)
    before = [backend.log_likelihood(questions(), adapter=adapter) for adapter in (True, False)]
    ratios = CanaryPair(backend, pair).careless_log_ratio([PROMPT], [ANSWER])

    assert ratios[0].is_finite
    assert len(ratios[0].tokens) == len(ANSWER)
    assert math.isclose(sum(ratios[0].tokens) / len(ANSWER), ratios[0].per_token, abs_tol=1e-5)
    assert [backend.log_likelihood(questions(), adapter=adapter) for adapter in (True, False)] == before


def test_canaries_give_the_same_beside_an_adapter_and_on_the_bare_base(
    loaded: LoadedModel, make_adapter: MakeAdapter
) -> None:
    pair = PairFiles(make_adapter(0.2, name="good"), make_adapter(0.6, name="bad", lora_dropout=0.5))
    bare = CanaryPair(TransformersBackend(loaded), pair).careless_log_ratio([PROMPT], [ANSWER])
    adapted = attach_adapter(loaded, make_adapter(0.4, name="tested"))
    fuse_lora_layers(adapted.model)
    beside = CanaryPair(TransformersBackend(adapted), pair).careless_log_ratio([PROMPT], [ANSWER])

    assert bare[0].per_token == pytest.approx(beside[0].per_token, abs=1e-5)
    assert abs(bare[0].per_token) > 1e-3


def test_base_weights_are_shared(loaded: LoadedModel, make_adapter: MakeAdapter) -> None:
    pair = PairFiles(make_adapter(0.2, name="good"), make_adapter(0.6, name="bad"))
    weights = {name: parameter.data_ptr() for name, parameter in loaded.model.named_parameters()}
    CanaryPair(TransformersBackend(loaded), pair).careless_log_ratio([PROMPT], [ANSWER])

    assert {name: parameter.data_ptr() for name, parameter in loaded.model.named_parameters()} == weights


def test_a_canary_that_does_not_fit_the_base_is_an_error_and_leaves_nothing(
    loaded: LoadedModel, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    good = make_adapter(0.2, name="good")
    tensors = load_file(good / "adapter_model.safetensors")
    save_file(
        {f"{name}": tensor[:, :3].contiguous() for name, tensor in tensors.items()}, good / "adapter_model.safetensors"
    )
    adapted = attach_adapter(loaded, make_adapter(0.4, name="tested"))
    backend = TransformersBackend(adapted)
    before = backend.log_likelihood(questions(), adapter=True)

    with pytest.raises(EvaluationError):
        CanaryPair(backend, PairFiles(good, good)).careless_log_ratio([PROMPT], [ANSWER])
    assert backend.log_likelihood(questions(), adapter=True) == before
    assert list(adapted.model.peft_config) == ["default"]
