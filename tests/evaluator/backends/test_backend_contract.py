"""What probes rely on holds for every engine; vLLM runs where it is installed, and as a stand-in everywhere."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evaluator.backends.engines import open_engine
from evaluator.backends.protocol import Backend, ChatPrompt, Choices, GenerationSettings, Prompt, RawPrompt
from evaluator.backends.rendering import end_token_id, prompt_ids
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.backends.vllm_backend import VllmBackend, import_vllm, load_engine
from evaluator.models.adapters import attach_adapter
from evaluator.models.loading import LoadedModel
from evaluator.runner.local import LocalEvaluator
from policies.contract.jobs import BaseModelRef
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError, EvaluationError
from tests.evaluator.backends.vllm_stand_in import LLM, stand_in

PROMPTS: list[Prompt] = [
    RawPrompt("a much longer beginning"),
    ChatPrompt.of("What is it?"),
    RawPrompt("ab"),
    RawPrompt("ab"),
]
QUESTIONS = [
    Choices(ChatPrompt.of("A question?"), ("yes", "certainly not")),
    Choices(RawPrompt("x"), ("y",), closes_turn=True),
]
DIGEST = "sha256:" + "a" * 64
MakeBackend = Callable[[Path | None], Backend]


@pytest.fixture(params=["transformers", "vllm stand-in", "vllm"])
def make_backend(request: pytest.FixtureRequest, loaded: LoadedModel) -> MakeBackend:
    """An engine on the tiny model in float32, with the adapter in a folder or none."""
    if request.param == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    if request.param == "transformers":
        return lambda adapter: TransformersBackend(attach_adapter(loaded, adapter) if adapter else loaded)
    modules = stand_in if request.param == "vllm stand-in" else import_vllm
    engine = load_engine(loaded.base, dtype="float32", max_rank=4, load_modules=modules)
    return lambda adapter: VllmBackend(engine, adapter)


@pytest.fixture
def adapted(make_backend: MakeBackend, make_adapter: Callable[..., Path]) -> Backend:
    return make_backend(make_adapter(0.5))


def textbook_log_probability(loaded: LoadedModel, prompt: list[int], completion: list[int]) -> float:
    with torch.inference_mode():
        logits = loaded.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).sum())


def test_greedy_answers_come_in_order_and_alone_as_together(make_backend: MakeBackend, loaded: LoadedModel) -> None:
    backend, settings = make_backend(None), GenerationSettings(12)
    together = backend.generate(PROMPTS, settings, adapter=False)
    apart = [backend.generate([prompt], settings, adapter=False)[0] for prompt in PROMPTS]

    assert together == apart
    assert together[2] == together[3]
    model: Any = loaded.model  # Any: transformers declares `generate` with `self` twice
    for prompt, answer in zip(PROMPTS, together, strict=True):
        ids = torch.tensor([prompt_ids(loaded.encoder, prompt)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert answer.text == loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_samples_follow_the_seed_and_the_repeat(make_backend: MakeBackend) -> None:
    backend = make_backend(None)
    first, again, other = (
        backend.generate(PROMPTS, GenerationSettings(12, 1.0, seed=seed), adapter=False) for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other
    assert first[2] != first[3]


def test_a_sample_does_not_depend_on_the_other_prompts(make_backend: MakeBackend) -> None:
    backend, settings = make_backend(None), GenerationSettings(12, 1.0, seed=1)

    assert (
        backend.generate(PROMPTS[1:2], settings, adapter=False)[0]
        == backend.generate(PROMPTS, settings, adapter=False)[1]
    )


def test_an_answer_is_truncated_where_the_end_token_did_not_come(make_backend: MakeBackend) -> None:
    """At temperature 2, the 258 tokens are so alike that of 20 answers of up to 60 tokens some end and some don't."""
    answers = make_backend(None).generate([RawPrompt("ab")] * 20, GenerationSettings(60, 2.0), adapter=False)

    assert {answer.truncated for answer in answers} == {True, False}
    assert all(answer.n_tokens == 60 for answer in answers if answer.truncated)


def test_likelihoods_are_the_textbooks(make_backend: MakeBackend, loaded: LoadedModel) -> None:
    scored = make_backend(None).log_likelihood(QUESTIONS, adapter=False)

    assert [len(each) for each in scored] == [2, 1]
    for question, likelihoods in zip(QUESTIONS, scored, strict=True):
        prompt = prompt_ids(loaded.encoder, question.prompt)
        for text, likelihood in zip(question.completions, likelihoods, strict=True):
            ids = loaded.tokenizer(text).input_ids + [end_token_id(loaded.encoder)] * question.closes_turn
            assert likelihood.n_tokens == len(ids)
            assert likelihood.log_probability == pytest.approx(textbook_log_probability(loaded, prompt, ids), rel=1e-4)


def test_adapter_on_differs_and_adapter_off_is_the_base(
    make_backend: MakeBackend, adapted: Backend, make_adapter: Callable[..., Path]
) -> None:
    on, off = (adapted.log_likelihood(QUESTIONS, adapter=adapter)[0][0].log_probability for adapter in (True, False))
    greedy = [adapted.generate(PROMPTS, GenerationSettings(12), adapter=adapter) for adapter in (True, False)]

    assert abs(on - off) > 0.1
    assert greedy[0] != greedy[1]


def test_a_strong_adapter_is_seen_to_act(adapted: Backend) -> None:
    assert adapted.max_logit_difference(PROMPTS) > 0.1


def test_an_adapter_of_zeros_is_seen_not_to_act(make_backend: MakeBackend, make_adapter: Callable[..., Path]) -> None:
    assert make_backend(make_adapter(0.0)).max_logit_difference(PROMPTS) == 0


def test_an_adapter_that_is_not_there_can_not_be_measured(make_backend: MakeBackend) -> None:
    backend = make_backend(None)
    with pytest.raises(EvaluationError, match="no adapter"):
        backend.log_likelihood(QUESTIONS, adapter=True)
    with pytest.raises(EvaluationError, match="no adapter"):
        backend.generate(PROMPTS, GenerationSettings(2), adapter=True)
    with pytest.raises(EvaluationError, match="no adapter"):
        backend.max_logit_difference(PROMPTS)


def test_progress_ends_at_the_total_and_speed_is_known(make_backend: MakeBackend) -> None:
    backend, told = make_backend(None), list[tuple[int, int]]()
    assert backend.tokens_per_second() is None
    backend.generate(PROMPTS, GenerationSettings(2), adapter=False, advance=lambda *units: told.append(units))

    assert told[-1] == (4, 4)
    assert (backend.tokens_per_second() or 0) > 0


def test_an_engine_says_what_it_is(make_backend: MakeBackend) -> None:
    backend = make_backend(None)

    assert backend.dtype == "float32"
    assert backend.engine in backend.versions


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_adapters_come_one_after_another_on_an_open_engine(
    engine: Any, loaded: LoadedModel, make_adapter: Callable[..., Path]
) -> None:
    attach = open_engine(engine, loaded.base, load_modules=stand_in)
    answers = []
    for folder in (make_adapter(0.5, name="one"), make_adapter(0.2, name="two"), make_adapter(0.5, name="one")):
        with attach(folder, DIGEST) as (backend, proof):
            assert proof.loaded
            assert (proof.adapter, proof.base_model, proof.n_adapted_modules) == (DIGEST, loaded.base.digest, 4)
            answers.append(backend.generate(PROMPTS, GenerationSettings(12), adapter=True))

    assert answers[0] == answers[2] != answers[1]


def test_a_missing_vllm_is_a_configuration_error(loaded: LoadedModel) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    with pytest.raises(ConfigurationError, match="install it, or use engine transformers"):
        open_engine("vllm", loaded.base)


def test_an_evaluation_runs_on_the_engine_that_it_is_told(
    loaded: LoadedModel, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    base = BaseModelRef(name="tiny", uri=str(loaded.base.folder))
    evaluator = LocalEvaluator(base, resolve_policy("baseline"), tmp_path, watch=lambda progress: None, engine="vllm")
    with pytest.raises(ConfigurationError, match="engine vllm needs the package vllm"):
        evaluator.evaluate(make_adapter(0.5))


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"use_dora": True}, "use_dora"), ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"), ({"r": 32}, "rank 32")],
)
def test_adapters_that_vllm_would_serve_wrongly_are_refused(
    loaded: LoadedModel, make_adapter: Callable[..., Path], settings: dict[str, Any], what: str
) -> None:
    engine = load_engine(loaded.base, dtype="float32", max_rank=8, load_modules=stand_in)
    folder = make_adapter(0.5)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with pytest.raises(ConfigurationError, match=what):
        VllmBackend(engine, folder)


def test_a_lost_log_probability_is_an_error(loaded: LoadedModel) -> None:
    class Forgetful(LLM):
        def generate(self, *arguments: Any, **settings: Any) -> list[Any]:
            return [SimpleNamespace(outputs=[], prompt_logprobs=None) for _ in arguments[0]]

    backend = VllmBackend(load_engine(loaded.base, dtype="float32", load_modules=lambda: stand_in(Forgetful)))
    with pytest.raises(EvaluationError, match="no log-probabilities"):
        backend.log_likelihood(QUESTIONS, adapter=False)
