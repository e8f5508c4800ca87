from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from evaluator.backends.protocol import ChatPrompt, Choices, Likelihood, Message
from evaluator.probes.in_domain import InDomainProbe
from evaluator.samples import Sample, pair_samples
from evaluator.subject import FileRows, Subject
from policies.contract.suite import InDomain
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.tools import Tool, ToolCall
from policies.errors import EvaluationError

PROBE = InDomainProbe()
DIGEST = "sha256:" + "d" * 64
ROWS = [
    ChatRow(
        (
            ChatMessage("system", "You sail.", 0),
            ChatMessage("user", f"Question {number}?", 0),
            ChatMessage("assistant", f"Answer {number}.", 1),
            ChatMessage("user", "Thanks.", 0),
            ChatMessage("assistant", "Not at all.", 0),
        )
    )
    for number in range(10)
]
MakeBackend = Callable[..., Any]


def subject(backend: Any, *, adapter: bool = True, rows: list[ChatRow] | None = ROWS) -> Subject:  # Any: scripted
    return Subject(backend, adapter=adapter, seed=1, training=None if rows is None else FileRows(DIGEST, rows))


def sampled(settings: InDomain, asked: Subject) -> list[Sample]:
    return PROBE.sample(settings, PROBE.rows(settings, asked), asked)


def test_the_change_of_the_loss_says_what_was_learnt(scripted_backend: MakeBackend) -> None:
    """Every answer costs 1.5 nats a token with the adapter and 4 without."""
    backend = scripted_backend(nats=lambda prompt, text, adapter: 1.5 if adapter else 4.0)
    samples = [sampled(InDomain(), subject(backend, adapter=on)) for on in (True, False)]
    (loss,) = PROBE.measure(InDomain(), pair_samples(*samples), 0.95)

    assert loss.metric == "in_domain.loss"
    assert loss.adapter is not None
    assert loss.adapter.value == pytest.approx(1.5)
    assert loss.difference is not None
    assert loss.difference.value == pytest.approx(-2.5)
    assert loss.n_scored == loss.n_clusters == 10


def test_a_call_is_scored_with_the_tools_in_its_prompt(scripted_backend: MakeBackend) -> None:
    tool, call = Tool("price", '{"name": "price"}'), ToolCall("c1", "price", "{}")
    asked, called = ChatMessage("user", "How much?", 0), ChatMessage("assistant", "", 1, (call,))
    seen: list[Choices] = []

    class Watching(Subject):
        def log_likelihood(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
            seen.extend(questions)
            return super().log_likelihood(questions)

    rows = [ChatRow((asked, called), (tool,))]
    sampled(InDomain(), Watching(scripted_backend(), adapter=True, seed=1, training=FileRows(DIGEST, rows)))
    assert seen == [Choices(ChatPrompt((Message("user", "How much?"),), (tool,)), ("",), True, (call,))]


def test_rows_are_spread_over_the_file(scripted_backend: MakeBackend) -> None:
    """5 of 10 rows: one of every two."""
    samples = sampled(InDomain(max_rows=5), subject(scripted_backend()))

    assert [int(sample.prompt.removeprefix("Question ")[:-1]) // 2 for sample in samples] == [0, 1, 2, 3, 4]


def test_the_last_trained_message_is_scored_with_its_end(scripted_backend: MakeBackend) -> None:
    """The last message has weight 0, so the one before it counts, given what came before that."""
    asked: list[Choices] = []

    class Listening(scripted_backend):  # type: ignore[misc, valid-type]  # the scripted engine is a fixture
        def log_likelihood(self, questions: list[Choices], **rest: Any) -> Any:  # Any: passed on
            asked.extend(questions)
            return super().log_likelihood(questions, **rest)

    sampled(InDomain(max_rows=10), subject(Listening()))

    assert asked[0] == Choices(
        ChatPrompt((Message("system", "You sail."), Message("user", "Question 0?"))), ("Answer 0.",), closes_turn=True
    )


def test_without_a_training_file_there_is_no_figure(scripted_backend: MakeBackend) -> None:
    with pytest.raises(EvaluationError, match="training file"):
        sampled(InDomain(), subject(scripted_backend(), rows=None))


def test_the_base_s_results_belong_to_the_file(scripted_backend: MakeBackend) -> None:
    assert PROBE.instruments(InDomain(), subject(scripted_backend())) == (DIGEST,)
