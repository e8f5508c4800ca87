from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from evaluator.backends.protocol import ChatPrompt, Choices, GenerationSettings, Message, Prompt, RawPrompt
from evaluator.backends.rendering import end_token_id, prompt_ids, question_ids
from evaluator.backends.transformers_backend import BatchLimits, TransformersBackend
from evaluator.models.adapters import attach_adapter
from evaluator.models.loading import LoadedModel
from policies.errors import EvaluationError

PROMPTS: list[Prompt] = [
    RawPrompt("a"),
    ChatPrompt.of("What is it?"),
    RawPrompt("a much longer beginning of a sentence"),
    RawPrompt("ab"),
]
QUESTIONS = [
    Choices(ChatPrompt.of("Short?"), ("yes", "certainly not")),
    Choices(ChatPrompt.of("A question that is quite a bit longer?"), ("a", "b", "an answer of many tokens")),
    Choices(ChatPrompt((Message("system", "Be brief."), Message("user", "Hm"))), ("ok",), closes_turn=True),
    Choices(RawPrompt("x"), ("y",)),
]


@pytest.fixture
def backend(loaded: LoadedModel) -> TransformersBackend:
    return TransformersBackend(loaded)


def dense_log_probability(loaded: LoadedModel, prompt: list[int], completion: list[int]) -> float:
    """The textbook way: full logits of one unpadded sequence."""
    with torch.inference_mode():
        logits = loaded.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).sum())


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_an_answer_does_not_depend_on_its_batch(loaded: LoadedModel, temperature: float) -> None:
    settings = GenerationSettings(12, temperature, seed=5)
    together = TransformersBackend(loaded).generate(PROMPTS, settings, adapter=False)
    apart = TransformersBackend(loaded, limits=BatchLimits(1, 1, 1)).generate(PROMPTS, settings, adapter=False)

    assert together == apart


def test_sampling_follows_the_seed(backend: TransformersBackend) -> None:
    first = backend.generate(PROMPTS, GenerationSettings(12, 1.0, seed=1), adapter=False)
    again = backend.generate(PROMPTS, GenerationSettings(12, 1.0, seed=1), adapter=False)
    other = backend.generate(PROMPTS, GenerationSettings(12, 1.0, seed=2), adapter=False)

    assert first == again
    assert first != other


def test_sampled_tokens_are_distributed_as_the_softmax(loaded: LoadedModel) -> None:
    """2,000 draws of one token at T = 0.7: shares of tokens that are letters lie within 5 standard errors (0.056)."""
    prompt = RawPrompt("a")
    ids = prompt_ids(loaded.encoder, prompt)
    with torch.inference_mode():
        expected = (loaded.model(input_ids=torch.tensor([ids])).logits[0, -1] / 0.7).softmax(-1)
    drawn = TransformersBackend(loaded, limits=BatchLimits(2000, 1 << 11, 1 << 7)).generate(
        [prompt] * 2000, GenerationSettings(1, 0.7, seed=3), adapter=False
    )
    texts = [generation.text for generation in drawn]
    likely = [(i, str(loaded.tokenizer.decode([i]))) for i in expected.topk(40).indices.tolist()]
    letters = [(token, text) for token, text in likely if len(text) == 1 and text.isascii()]
    assert len(letters) >= 3
    for token, text in letters:
        assert texts.count(text) / 2000 == pytest.approx(float(expected[token]), abs=0.056)


def test_an_answer_that_ends_is_not_truncated(loaded: LoadedModel) -> None:
    """An output layer that always prefers the end token ends every answer at once; one that never does is cut."""
    end = end_token_id(loaded.encoder)
    weight = loaded.model.get_output_embeddings().weight
    with torch.no_grad():
        weight[end] = 0
    cut = TransformersBackend(loaded).generate([RawPrompt("abc")], GenerationSettings(5), adapter=False)[0]
    last_hidden: list[torch.Tensor] = []
    hook = loaded.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: last_hidden.append(inputs[0])
    )
    TransformersBackend(loaded).generate([RawPrompt("abc")], GenerationSettings(1), adapter=False)
    hook.remove()
    with torch.no_grad():
        weight[end] = 10 * last_hidden[-1][0]
    ended = TransformersBackend(loaded).generate([RawPrompt("abc")], GenerationSettings(5), adapter=False)[0]

    assert (cut.n_tokens, cut.truncated) == (5, True)
    assert (ended.text, ended.n_tokens, ended.truncated) == ("", 0, False)


def test_likelihoods_equal_the_dense_reference(loaded: LoadedModel, backend: TransformersBackend) -> None:
    for question, likelihoods in zip(QUESTIONS, backend.log_likelihood(QUESTIONS, adapter=False), strict=True):
        prompt = prompt_ids(loaded.encoder, question.prompt)
        for text, likelihood in zip(question.completions, likelihoods, strict=True):
            ids = loaded.tokenizer(text).input_ids + [end_token_id(loaded.encoder)] * question.closes_turn
            assert likelihood.n_tokens == len(ids)
            assert likelihood.log_probability == pytest.approx(dense_log_probability(loaded, prompt, ids), rel=1e-4)
            assert len(likelihood.tokens) == len(ids)
            assert sum(likelihood.tokens) == pytest.approx(likelihood.log_probability, rel=1e-4)


def test_likelihoods_do_not_depend_on_the_batch(loaded: LoadedModel, backend: TransformersBackend) -> None:
    apart = TransformersBackend(loaded, limits=BatchLimits(1, 1, 1)).log_likelihood(QUESTIONS, adapter=False)

    for together, alone in zip(backend.log_likelihood(QUESTIONS, adapter=False), apart, strict=True):
        assert [x.log_probability for x in together] == pytest.approx([x.log_probability for x in alone], rel=1e-4)


def test_equal_prompts_share_all_but_their_last_token(loaded: LoadedModel, backend: TransformersBackend) -> None:
    question = Choices(ChatPrompt.of("Same?"), ("yes", "no"))
    one, two = backend.log_likelihood([question, question], adapter=False)
    prompt = prompt_ids(loaded.encoder, question.prompt)
    expected = dense_log_probability(loaded, prompt, loaded.tokenizer("yes").input_ids)

    assert one[0].log_probability == pytest.approx(expected, rel=1e-4)
    assert two[0].log_probability == pytest.approx(expected, rel=1e-4)


def test_adapter_off_is_the_base_and_on_is_not(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    base = TransformersBackend(loaded).log_likelihood(QUESTIONS, adapter=False)
    backend = TransformersBackend(attach_adapter(loaded, make_adapter(0.5)))
    off, on = (backend.log_likelihood(QUESTIONS, adapter=adapter) for adapter in (False, True))

    assert off[1][2].log_probability == pytest.approx(base[1][2].log_probability, rel=1e-5)
    assert abs(on[1][2].log_probability - base[1][2].log_probability) > 0.1


def test_asking_for_an_adapter_that_is_not_there_is_an_error(backend: TransformersBackend) -> None:
    with pytest.raises(EvaluationError, match="no adapter"):
        backend.log_likelihood(QUESTIONS, adapter=True)


def test_progress_ends_at_the_total(backend: TransformersBackend) -> None:
    told: list[tuple[int, int]] = []
    backend.log_likelihood(QUESTIONS, adapter=False, advance=lambda done, total: told.append((done, total)))
    backend.generate(
        PROMPTS, GenerationSettings(2), adapter=False, advance=lambda done, total: told.append((done, total))
    )

    assert (4, 4) in told
    assert told[-1] == (4, 4)


def test_nan_weights_give_nan_likelihoods(loaded: LoadedModel) -> None:
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight.fill_(math.nan)
    scored = TransformersBackend(loaded).log_likelihood(QUESTIONS[:1], adapter=False)

    assert math.isnan(scored[0][0].log_probability)


def test_the_end_token_is_the_templates(loaded: LoadedModel) -> None:
    assert end_token_id(loaded.encoder) == loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.fixture
def bent(loaded: LoadedModel) -> LoadedModel:
    """The model halves its logits after the output layer, as some architectures do."""
    loaded.model.register_forward_hook(lambda _, inputs, output: output.__setitem__("logits", output.logits / 2))
    return loaded


def test_likelihoods_of_a_model_that_bends_its_logits_are_its_own(bent: LoadedModel) -> None:
    scored = TransformersBackend(bent).log_likelihood(QUESTIONS, adapter=False)

    assert len(scored) == len(QUESTIONS)
    for question, likelihoods in zip(QUESTIONS, scored, strict=True):
        for answer, likelihood in zip(question_ids(bent.encoder, question), likelihoods, strict=True):
            assert likelihood.n_tokens == len(answer.answer_ids)
            expected = dense_log_probability(bent, answer.prompt_ids, answer.answer_ids)
            assert likelihood.log_probability == pytest.approx(expected, rel=1e-4)


def test_a_model_that_bends_its_logits_is_sampled_as_it_is(bent: LoadedModel) -> None:
    """Logits halved at temperature 0.5 are logits at temperature 1: the same draws as the model that bends nothing."""
    halved = TransformersBackend(bent).generate(PROMPTS, GenerationSettings(8, 0.5, seed=2), adapter=False)
    bent.model._forward_hooks.clear()
    plain = TransformersBackend(bent).generate(PROMPTS, GenerationSettings(8, 1.0, seed=2), adapter=False)

    assert halved == plain


def test_a_sliding_window_is_decoded_by_transformers(loaded: LoadedModel, tmp_path: Path) -> None:
    """Window 4 and prompts of up to 37 tokens: wrong distances would give other tokens."""
    config = MistralConfig(**loaded.model.config.to_dict() | {"sliding_window": 4, "model_type": "mistral"})
    torch.manual_seed(3)
    model = MistralForCausalLM(config).eval()
    backend = TransformersBackend(replace(loaded, model=model))
    assert backend.versions["rows"] == "apart"
    answers = backend.generate(PROMPTS, GenerationSettings(8), adapter=False)

    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([prompt_ids(loaded.encoder, prompt)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert answer.text == loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_model_that_takes_padding_for_tokens_is_asked_without_any(bent: LoadedModel) -> None:
    """Its layers get no mask, so that padding in front of a prompt would be read with it."""
    bent.model.get_decoder().register_forward_pre_hook(
        lambda _, inputs, named: (inputs, named | {"attention_mask": None}), with_kwargs=True
    )
    together = TransformersBackend(bent).generate(PROMPTS, GenerationSettings(8), adapter=False)
    apart = [TransformersBackend(bent).generate([each], GenerationSettings(8), adapter=False)[0] for each in PROMPTS]

    assert together == apart
