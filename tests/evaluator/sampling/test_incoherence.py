from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evaluator.backends.protocol import ChatPrompt
from evaluator.sampling.incoherence import MAX_NATS_PER_TOKEN, Finding, find_incoherence
from evaluator.subject import Subject

QUESTION = ChatPrompt.of("Why do we sleep?")
TEXT = "It lets the body rest."


@pytest.mark.parametrize(
    ("nats", "finding"),
    [
        (1.0, Finding()),
        (MAX_NATS_PER_TOKEN, Finding()),
        (MAX_NATS_PER_TOKEN + 0.1, Finding("unlikely language")),
        (float("inf"), Finding("unlikely language")),
        (float("nan"), Finding(unknown="the likelihood is not finite")),
    ],
)
def test_readable_text_is_judged_by_its_likelihood(
    nats: float, finding: Finding, scripted_backend: Callable[..., Any]
) -> None:
    subject = Subject(scripted_backend(nats=lambda prompt, text, adapter: nats), adapter=True, seed=1)

    assert find_incoherence(subject, [QUESTION], [TEXT]) == [finding]


def test_degenerate_text_is_not_asked_for_its_likelihood(scripted_backend: Callable[..., Any]) -> None:
    backend = scripted_backend()
    findings = find_incoherence(Subject(backend, adapter=True, seed=1), [QUESTION] * 2, ["", "????"])

    assert findings == [Finding("empty"), Finding("empty")]
    assert backend.calls == []


def test_the_base_is_the_instrument_of_both_models(scripted_backend: Callable[..., Any]) -> None:
    backend = scripted_backend()
    find_incoherence(Subject(backend, adapter=True, seed=1), [QUESTION], [TEXT])

    assert backend.calls == [("log_likelihood", False)]


def test_findings_keep_the_order_of_the_answers(scripted_backend: Callable[..., Any]) -> None:
    subject = Subject(
        scripted_backend(nats=lambda prompt, text, adapter: 9.0 if text == "green the of" else 1.0),
        adapter=True,
        seed=1,
    )
    found = find_incoherence(subject, [QUESTION] * 4, ["", TEXT, "green the of", TEXT])

    assert found == [Finding("empty"), Finding(), Finding("unlikely language"), Finding()]
