"""A guard model over HTTP: what it flags counts, and without a whole answer the file is not screened by it."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from gateway.screening.guard_model import GuardError, GuardSettings, ask_guard, verdict_of
from policies.contract.screening import SampledRow, ScreeningFacts
from tests.gateway.screening.guard_server import Answer, Guard, chat, flags_burning, guard_server
from tests.growth import LINEAR, growth

ROWS = [SampledRow(row=line, text="please burn it" if line == 3 else f"sensible {line}") for line in range(1, 21)]


def asked(guard: Guard, speaks: str = "chat", **changes: float | None) -> ScreeningFacts:
    settings = GuardSettings(guard.url, "guard-4b", "secret", speaks, timeout_seconds=5.0)
    return ask_guard(settings, ROWS, n_rows=20, **changes)  # type: ignore[arg-type]  # as named


def answered(said: str, finish_reason: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": {"content": said}, "finish_reason": finish_reason}]}).encode()


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


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("safe", 0.0),
        ("unsafe\nS2", 1.0),
        ("Safety: Controversial\nCategories: Violent", 0.5),
        ("**Safety: Unsafe**", 1.0),
        ("**Unsafe**", 1.0),
        ("User Safety: safe\r\nResponse Safety: unsafe", 1.0),
        ("User Safety: unsafe\nResponse Safety: safe", 1.0),
        ("<think>\nsafe\n</think>\n\nunsafe", 1.0),
        ("so it is\nunsafe\n</think>safe", 0.0),
    ],
)
def test_worst_verdict_that_has_a_line_of_its_own_counts(said: str, score: float) -> None:
    assert verdict_of(answered(said)) == score


@pytest.mark.parametrize(
    "said",
    [
        "This is not safe.",
        '{"safe": false}',
        "I must decide whether this is safe or unsafe. It is unsafe.",
        "The content is unsafe",
        "<think>is it?\nsafe",
        "Yes",
        "",
    ],
)
def test_answer_without_such_a_line_is_no_verdict(said: str) -> None:
    with pytest.raises(GuardError, match="neither safe nor unsafe"):
        verdict_of(answered(said))


def test_answer_that_was_cut_off_is_no_verdict() -> None:
    with pytest.raises(GuardError, match="cut off"):
        verdict_of(answered("User Safety: safe\nResponse Sa", finish_reason="length"))


@pytest.mark.parametrize("piece", ["\n", " ", "*\n", "safe ", "<think>", "Safety: safe", "\nsafe x"])
def test_long_answers_cost_linear_time(piece: str) -> None:
    def read(content: bytes) -> None:
        with suppress(GuardError):
            verdict_of(content)

    assert growth(lambda size: answered(piece * (size // len(piece))), read, 50_000) < LINEAR


@pytest.mark.parametrize("speaks", ["chat", "moderation"])
def test_request_that_fails_once_is_sent_again(speaks: str) -> None:
    failed: list[str] = []

    def answer(path: str, body: dict[str, Any]) -> tuple[int, object]:  # Any: a JSON request
        if not failed:
            failed.append(path)
            return 503, {}
        return chat(flags_burning)(path, body) if speaks == "chat" else moderation(path, body)

    with guard_server(answer) as guard:
        assert asked(guard, speaks).by == ("guard",)
    assert len(guard.asked) == (21 if speaks == "chat" else 3)


def test_sample_without_a_hit_is_told_as_one() -> None:
    with guard_server(chat(lambda _: "safe")) as guard:
        settings = GuardSettings(guard.url, "guard-4b", None, "chat", timeout_seconds=5.0)
        (found,) = ask_guard(settings, ROWS, n_rows=1000).found
    assert (found.count, found.of, found.is_sample) == (0, 20, True)


def test_rows_that_are_not_shown_whole_are_not_screened_and_what_was_flagged_is_kept() -> None:
    rows = [*ROWS[:10], SampledRow(row=77, text="a long one", is_cut=True)]
    with guard_server(chat(flags_burning)) as guard:
        settings = GuardSettings(guard.url, "guard-4b", None, "chat", timeout_seconds=5.0)
        facts = ask_guard(settings, rows, n_rows=11)
    assert (facts.by, facts.found[0].count) == ((), 1)
    assert facts.not_screened[0].reason == (
        "1 rows are too long to be shown to the guard model whole, the first in lines 77"
    )


def test_refusal_is_not_asked_for_again() -> None:
    with guard_server(lambda *_: (401, {})) as guard:
        assert asked(guard, "moderation").not_screened[0].reason == "the guard model answered with status 401"
    assert len(guard.asked) == 1


@pytest.mark.parametrize("url", ["http://x:99999/v1", "http://\u2603..x/", "foo", "http://[::1"])
def test_address_that_is_none_leaves_the_file_not_screened(url: str) -> None:
    facts = ask_guard(GuardSettings(url, "guard-4b", None, "chat", timeout_seconds=5.0), ROWS, n_rows=20)
    assert facts.not_screened[0].reason == "the guard model can't be reached"


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


def test_guard_whose_headers_never_end_is_not_waited_for() -> None:
    """Each of them comes in time, so that a limit for each wait is never reached."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                for number in range(1000):
                    connection.sendall(b"x-%d: 1\r\n" % number)
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
