"""A guard model over HTTP: what it flags counts, and without a whole answer the file is not screened by it."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from gateway.screening.guard_model import GuardSettings, ask_guard
from policies.contract.screening import SampledRow, ScreeningFacts
from tests.gateway.screening.guard_server import Answer, Guard, chat, flags_burning, guard_server

ROWS = [SampledRow(row=line, text="please burn it" if line == 3 else f"sensible {line}") for line in range(1, 21)]


def asked(guard: Guard, speaks: str = "chat", **changes: float | None) -> ScreeningFacts:
    settings = GuardSettings(guard.url, "guard-4b", "secret", speaks, timeout_seconds=5.0)
    return ask_guard(settings, ROWS, n_rows=20, **changes)  # type: ignore[arg-type]  # as named


def moderation(_: str, body: dict[str, Any]) -> tuple[int, object]:  # Any: a JSON request
    scores = [0.7 if "burn" in text else 0.1 for text in body["input"]]
    return 200, {"results": [{"flagged": score > 0.9, "category_scores": {"harm": score}} for score in scores]}


def test_chat_guard_flags_rows_by_the_word_that_it_answers() -> None:
    with guard_server(chat(flags_burning)) as guard:
        facts = asked(guard)
    (found,) = facts.found
    assert facts.by == ("guard",)
    assert [each.row for each in found.rows if not isinstance(each, int)] == [3]
    assert (found.count, found.of, found.is_sample) == (1, 20, False)
    assert len(guard.asked) == 20
    assert guard.asked[0][0] == "/v1/chat/completions"
    assert guard.asked[0][1]["model"] == "guard-4b"
    assert guard.asked[0][2] == "Bearer secret"


def test_moderation_guard_is_asked_in_batches_and_flags_by_the_threshold() -> None:
    with guard_server(moderation) as guard:
        assert asked(guard, "moderation").found == ()
        facts = asked(guard, "moderation", threshold=0.6)
    assert [len(body["input"]) for _, body, _ in guard.asked[:2]] == [16, 4]
    assert facts.found[0].count == 1


@pytest.mark.parametrize(
    ("answer", "speaks", "reason"),
    [
        (lambda *_: (500, {}), "chat", "the guard model answered with status 500"),
        (lambda *_: (302, {}), "chat", "the guard model answered with status 302"),
        (lambda *_: (200, b"not json"), "chat", "the guard model's answer can't be read"),
        (lambda *_: (200, {"choices": []}), "chat", "the guard model's answer says neither safe nor unsafe"),
        (chat(lambda _: "I would rather not say"), "chat", "the guard model's answer says neither safe nor unsafe"),
        (lambda *_: (200, {"results": []}), "moderation", "the guard model answered for 0 of 16 rows"),
    ],
)
def test_any_answer_that_is_missing_leaves_the_file_not_screened(answer: Answer, speaks: str, reason: str) -> None:
    with guard_server(answer) as guard:
        facts = asked(guard, speaks)
    assert facts.by == ()
    assert [(each.by, each.reason) for each in facts.not_screened] == [("guard", reason)]


def test_scores_that_are_no_scores_leave_the_file_not_screened() -> None:
    def answer(_: str, body: dict[str, Any]) -> tuple[int, object]:  # Any: a JSON request
        return 200, b'{"results": [' + b",".join([b'{"flagged": false, "category_scores": {"a": NaN}}'] * 16) + b"]}"

    with guard_server(answer) as guard:
        assert asked(guard, "moderation").by == ()


def test_guard_that_does_not_answer_in_time_leaves_the_file_not_screened() -> None:
    answered = threading.Event()

    def silent(*_: object) -> tuple[int, object]:
        answered.wait(10)
        return 200, {}

    with guard_server(silent) as guard:
        settings = GuardSettings(guard.url, "guard-4b", None, "moderation", timeout_seconds=0.2)
        facts = ask_guard(settings, ROWS, n_rows=20)
        answered.set()
    assert facts.not_screened[0].reason == "the guard model did not answer in time"


def test_guard_that_answers_without_end_is_not_waited_for() -> None:
    """Each piece of its answer comes in time, the whole of it doesn't."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.02)

        pool.submit(drip)
        settings = GuardSettings(f"http://127.0.0.1:{server.getsockname()[1]}/v1", "g", None, "moderation", 0.3)
        facts = ask_guard(settings, ROWS, n_rows=20)
    assert facts.not_screened[0].reason == "the guard model did not answer in time"


def test_guard_that_is_not_there_leaves_the_file_not_screened_and_its_address_unsaid() -> None:
    settings = GuardSettings("http://127.0.0.1:1/v1", "guard-4b", None, "chat", timeout_seconds=1.0)
    facts = ask_guard(settings, ROWS, n_rows=20)
    assert facts.not_screened[0].reason == "the guard model can't be reached"


def test_without_a_guard_model_the_file_is_not_screened_by_one() -> None:
    assert ask_guard(None, (), n_rows=20).not_screened[0].reason == "no guard model is configured"


def test_guard_is_not_asked_on_when_nobody_waits() -> None:
    with guard_server(moderation) as guard:
        settings = GuardSettings(guard.url, "guard-4b", None, "moderation", timeout_seconds=5.0)
        assert ask_guard(settings, ROWS, n_rows=20, go_on=lambda: False).by == ()
    assert guard.asked == []
