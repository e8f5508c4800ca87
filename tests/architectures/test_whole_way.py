"""Each architecture is trained, resumed, evaluated and loaded elsewhere, and all of them agree with plain transformers.

Windows are shorter than prompts, caps and scales are strong, and prompts differ in length, so that what is true of a
Llama alone would show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluator.backends.engines import AdapterInForce, open_engine
from evaluator.backends.protocol import ChatPrompt, Choices, GenerationSettings, Likelihood, Prompt, RawPrompt
from evaluator.backends.rendering import pad_batch, prompt_ids, question_ids
from evaluator.base_checks.model_findings import model_findings
from evaluator.base_checks.structure_findings import structure_findings
from evaluator.models.loading import load_encoder
from policies.contract.jobs import Supervised
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import IGNORED, Encoder
from policies.rendering.findings import text_findings
from tests.architectures.whole_way import BATCH_ROWS, Trained
from trainer.data import read_training_rows, shuffled, tokenise

TOKENS = 12
PROMPTS: list[Prompt] = [
    *map(ChatPrompt.of, ("Which tap is it?", "Hm", "A question that is quite a bit longer than the others are?")),
    RawPrompt("Once upon"),
]
QUESTIONS = [
    Choices(PROMPTS[0], ("yes", "certainly not")),
    Choices(PROMPTS[2], ("a", "b", "an answer of many tokens"), closes_turn=True),
    Choices(PROMPTS[1], ("ok",)),
]
"""All with the beginning that the template gives them."""


def test_its_base_is_said_to_work(trained: Trained) -> None:
    base = trained.spec.base_model
    folder = Path(base.uri)
    found = [
        *structure_findings(folder, base.lora),
        *model_findings(folder, base),
        *text_findings(load_base_text(folder)),
    ]
    assert not [each for each in found if each.outcome == "refused"]


def test_its_first_loss_is_the_models_own(trained: Trained) -> None:
    """The adapter is the identity then, and penalties are zero."""
    model: Any = AutoModelForCausalLM.from_pretrained(trained.base.folder, dtype=torch.float32)  # Any: generic forward
    rows = shuffled(read_training_rows(trained.files.training_file, name="", method=Supervised()), trained.spec.seed)
    samples = tokenise(rows, load_encoder(trained.base), max_tokens=1024)[:BATCH_ROWS]
    device = torch.device("cpu")
    ids, mask = pad_batch([sample.input_ids for sample in samples], 0, left=False, device=device)
    labels, _ = pad_batch([sample.labels for sample in samples], IGNORED, left=False, device=device)
    with torch.no_grad():
        loss = model.eval()(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert trained.record.log_history[0]["loss"] == pytest.approx(float(loss), rel=1e-4)


def test_its_defenses_act(trained: Trained) -> None:
    assert [evidence.acted for evidence in trained.record.evidence] == [True, True]


def test_a_run_that_was_resumed_gives_the_same_adapter(trained: Trained, tmp_path: Path) -> None:
    resumed = trained.resumed(tmp_path)
    assert resumed.resumed_from_steps == (1,)
    assert resumed.adapter == trained.record.adapter


def in_force(trained: Trained, measure: Callable[[AdapterInForce], Any]) -> Any:  # Any: what is measured
    with open_engine("transformers", trained.base)(trained.adapter, trained.record.adapter) as adapted:
        return measure(adapted)


def test_its_adapter_is_proved_and_its_likelihoods_are_those_of_plain_peft(trained: Trained) -> None:

    def measure(adapted: AdapterInForce) -> tuple[bool, list[tuple[Likelihood, ...]]]:
        return adapted.proof.loaded, adapted.backend.log_likelihood(QUESTIONS, adapter=True)

    loaded, scored = in_force(trained, measure)
    assert loaded
    encoder, plain = load_encoder(trained.base), trained.in_plain_peft()
    expected = [
        dense_log_probability(plain, answer.prompt_ids, answer.answer_ids)
        for question in QUESTIONS
        for answer in question_ids(encoder, question)
    ]
    assert [each.log_probability for choices in scored for each in choices] == pytest.approx(expected, rel=1e-4)


def dense_log_probability(model: Any, prompt: list[int], answer: list[int]) -> float:  # Any: generic forward
    """The textbook way: full logits of one unpadded sequence."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum())


def test_its_greedy_answers_are_those_of_plain_peft_and_of_the_merged_model(trained: Trained) -> None:
    settings = GenerationSettings(TOKENS)
    ours = in_force(trained, lambda adapted: adapted.backend.generate(PROMPTS, settings, adapter=True))
    encoder, plain = load_encoder(trained.base), trained.in_plain_peft()
    theirs = greedy(plain, encoder)
    assert greedy(plain.merge_and_unload(), encoder) == theirs
    assert [answer.text for answer in ours] == decoded(trained, theirs, encoder)


def greedy(model: Any, encoder: Encoder) -> list[list[int]]:  # Any: `generate` of several classes
    """Each prompt alone, by transformers."""
    answers = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt_ids(encoder, prompt)])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=sorted(encoder.end_ids),
        )
        answers.append(output[0, ids.shape[1] :].tolist())
    return answers


def decoded(trained: Trained, answers: Sequence[list[int]], encoder: Encoder) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(trained.base.folder)
    kept = [[token for token in answer if token not in encoder.end_ids] for answer in answers]
    return [str(tokenizer.decode(each, skip_special_tokens=True)) for each in kept]
