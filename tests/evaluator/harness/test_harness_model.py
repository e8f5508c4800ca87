from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from evaluator.backends.protocol import ChatPrompt, Message, RawPrompt
from evaluator.harness.model import Document, HarnessModel
from evaluator.subject import Subject
from policies.errors import EvaluationError

MakeBackend = Callable[..., Any]


@dataclass(frozen=True)
class Instance:
    """The members of lm_eval's class that are used."""

    args: tuple[Any, ...]
    doc_id: int = 0
    task_name: str = "task"


def model(backend: Any, *, chat: bool = False) -> HarnessModel:  # Any: a scripted engine
    return HarnessModel(Subject(backend, adapter=True, seed=3), chat=chat)


def test_likelihoods_come_in_the_order_of_the_requests(scripted_backend: MakeBackend) -> None:
    """5 tokens at as many nats as the continuation has letters; the two contexts take turns."""
    backend = scripted_backend(nats=lambda prompt, text, adapter: len(text))
    requests = [Instance(("a", " x")), Instance(("b", " yyy")), Instance(("a", " zz"))]

    assert model(backend).loglikelihood(requests) == [(-10.0, False), (-20.0, False), (-15.0, False)]
    assert backend.calls == [("log_likelihood", True)]


def test_white_space_before_a_continuation_belongs_to_it(scripted_backend: MakeBackend) -> None:
    asked = []

    def listen(prompt: object, text: str, adapter: bool) -> float:
        asked.append((prompt, text))
        return 1.0

    model(scripted_backend(nats=listen)).loglikelihood([Instance(("The sum is ", "4"))])

    assert asked == [(RawPrompt("The sum is"), " 4")]


def test_a_likelihood_that_is_not_finite_breaks_its_document(scripted_backend: MakeBackend) -> None:
    asked = model(scripted_backend(nats=lambda prompt, text, adapter: math.nan if text == "x" else 1.0))
    asked.loglikelihood([Instance(("a", "x"), 4), Instance(("a", "y"), 5)])

    assert asked.broken == {Document("task", 4)}


@pytest.mark.parametrize(("until", "answer"), [("\n", "one"), (["three", " two"], "one\n"), ([], "one\n two")])
def test_an_answer_ends_at_the_first_stop(scripted_backend: MakeBackend, until: str | list[str], answer: str) -> None:
    backend = scripted_backend(say=lambda prompt, adapter: "one\n two")

    assert model(backend).generate_until([Instance(("a", {"until": until}))]) == [answer]


def test_answers_come_in_the_order_of_the_requests(scripted_backend: MakeBackend) -> None:
    backend = scripted_backend(say=lambda prompt, adapter: prompt.text.upper())
    requests = [Instance((text, {"max_gen_toks": length})) for text, length in (("a", 5), ("b", 9), ("c", 5))]

    assert model(backend).generate_until(requests) == ["A", "B", "C"]


def test_sampling_that_the_engine_does_not_know_is_refused(scripted_backend: MakeBackend) -> None:
    settings = {"temperature": 0.7, "do_sample": True, "top_k": 5}

    with pytest.raises(EvaluationError, match="top_k"):
        model(scripted_backend()).generate_until([Instance(("a", settings))])


def test_greedy_tasks_may_name_what_greedy_decoding_ignores(scripted_backend: MakeBackend) -> None:
    settings = {"temperature": 0.7, "do_sample": False, "top_k": 5}

    assert model(scripted_backend()).generate_until([Instance(("a", settings))])


def test_chat_messages_reach_the_engine_as_messages(scripted_backend: MakeBackend) -> None:
    asked = []

    def listen(prompt: object, adapter: bool) -> str:
        asked.append(prompt)
        return "yes"

    chat = model(scripted_backend(say=listen), chat=True)
    context = chat.apply_chat_template([{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1"}])
    chat.generate_until([Instance((context, {}))])

    assert asked == [ChatPrompt((Message("system", "Add."), Message("user", "1 + 1")))]


def test_an_opened_answer_can_not_be_a_chat_prompt(scripted_backend: MakeBackend) -> None:
    with pytest.raises(EvaluationError, match="gen_prefix"):
        model(scripted_backend()).apply_chat_template([], add_generation_prompt=False)
