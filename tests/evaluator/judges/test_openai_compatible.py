from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from evaluator.judges.judge import Answer, Score
from evaluator.judges.openai_compatible import SILENT_ANSWERS, EndpointJudge
from evaluator.judges.rubric import render
from policies.errors import EvaluationError

if TYPE_CHECKING:
    from tests.evaluator.judges.conftest import Endpoint, Reply

Serve = Callable[[Callable[[int, dict[str, Any]], "Reply"]], "Endpoint"]
Say = Callable[..., "Reply"]
ANSWERS = [Answer("How are you?", f"Fine, answer {index}.") for index in range(12)]
SOON = 0.001


def test_it_asks_for_one_short_reply_with_logprobs(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("70"))
    EndpointJudge(endpoint.settings(top_logprobs=5)).score("coherent", ANSWERS[:1])

    assert endpoint.calls == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": render("coherent", ANSWERS[0])}],
            "max_tokens": 5,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 5,
        }
    ]


def test_scores_come_in_the_order_of_the_answers(serve: Serve, say: Say) -> None:
    numbers = {render("aligned", answer): str(index) for index, answer in enumerate(ANSWERS)}
    endpoint = serve(lambda _, body: say(numbers[body["messages"][0]["content"]]))

    scores = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS)
    assert scores == [Score(float(index)) for index in range(12)]


def test_logprobs_of_whole_number_tokens_are_weighted(serve: Serve, say: Say) -> None:
    """(90 · 0.6 + 80 · 0.2) / 0.8 = 87.5."""
    endpoint = serve(lambda _, body: say("90", [("90", {"90": 0.6, "80": 0.2, "I": 0.2})]))

    (score,) = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    assert score.value == pytest.approx(87.5)


def test_logprobs_of_single_digits_are_weighted(serve: Serve, say: Say) -> None:
    """85 with 0.8 · 0.75, 80 with 0.8 · 0.25, and by borrowing 75 and 70 with 0.2: 0.8·83.75 + 0.2·73.75 = 81.75."""
    digits = [("8", {"8": 0.8, "7": 0.2}), ("5", {"5": 0.75, "0": 0.25}), ("<|end|>", {"<|end|>": 1.0})]
    endpoint = serve(lambda _, body: say("85", digits))

    (score,) = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    assert score.value == pytest.approx(81.75)


def test_a_judge_that_refuses_gives_no_score(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("I can't", [("I", {"I": 0.9, "0": 0.1}), (" can", {" can": 1.0})]))

    (score,) = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    assert score.value is None
    assert (score.error or "").startswith("no_number")


def test_without_logprobs_the_number_is_parsed(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say(" 85\n"))

    assert EndpointJudge(endpoint.settings(top_logprobs=0)).score("aligned", ANSWERS[:1]) == [Score(85.0)]
    assert "logprobs" not in endpoint.calls[0]


def test_an_endpoint_that_ignores_logprobs_is_parsed(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("85"))

    assert EndpointJudge(endpoint.settings(top_logprobs=20)).score("aligned", ANSWERS[:1]) == [Score(85.0)]


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_busy_endpoint_is_asked_again(serve: Serve, say: Say, reply: type[Reply], status: int) -> None:
    endpoint = serve(lambda number, body: reply(status=status) if number < 2 else say("85"))

    assert EndpointJudge(endpoint.settings(), wait_seconds=SOON).score("aligned", ANSWERS[:1]) == [Score(85.0)]
    assert len(endpoint.calls) == 3


def test_the_wait_that_the_endpoint_asks_for_is_kept(serve: Serve, say: Say, reply: type[Reply]) -> None:
    """Its own waits would take hours."""
    endpoint = serve(lambda number, body: reply(status=429, headers={"Retry-After": "0"}) if number < 4 else say("85"))

    assert EndpointJudge(endpoint.settings(), wait_seconds=3600).score("aligned", ANSWERS[:1]) == [Score(85.0)]


def test_attempts_end(serve: Serve, reply: type[Reply]) -> None:
    endpoint = serve(lambda number, body: reply(status=503))
    judge = EndpointJudge(endpoint.settings(max_attempts=3), wait_seconds=SOON)

    assert judge.score("aligned", ANSWERS[:1]) == [Score(None, "unreachable: HTTP 503, tried 3 times")]
    assert len(endpoint.calls) == 3


def test_a_silent_endpoint_ends_the_evaluation(serve: Serve, reply: type[Reply]) -> None:
    endpoint = serve(lambda number, body: reply(status=503))
    judge = EndpointJudge(endpoint.settings(max_attempts=1, max_concurrency=1), wait_seconds=SOON)

    with pytest.raises(EvaluationError, match="does not answer: HTTP 503"):
        judge.score("aligned", ANSWERS)
    assert len(endpoint.calls) == SILENT_ANSWERS


def test_a_call_that_takes_too_long_is_repeated(serve: Serve, say: Say) -> None:
    over = threading.Event()

    def hangs_once(number: int, _: dict[str, Any]) -> Reply:
        if number == 0:
            over.wait(30)
        return say("85")

    judge = EndpointJudge(serve(hangs_once).settings(timeout_seconds=0.5), wait_seconds=SOON)
    try:
        assert judge.score("aligned", ANSWERS[:1]) == [Score(85.0)]
    finally:
        over.set()


def test_an_address_where_nobody_listens_gives_no_score(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("85"))
    settings = endpoint.settings(max_attempts=2)
    endpoint._server.server_close()

    scores = EndpointJudge(settings, wait_seconds=SOON).score("aligned", ANSWERS[:1])
    assert scores == [Score(None, "unreachable: ConnectError, tried 2 times")]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_ends_the_evaluation(serve: Serve, reply: type[Reply], status: int) -> None:
    endpoint = serve(lambda _, body: reply({"error": "no"}, status=status))

    with pytest.raises(EvaluationError, match=f"HTTP {status}; check"):
        EndpointJudge(endpoint.settings(max_concurrency=1)).score("aligned", ANSWERS)
    assert len(endpoint.calls) == 1


def test_a_call_that_is_not_taken_gives_no_score(serve: Serve, say: Say, reply: type[Reply]) -> None:
    endpoint = serve(lambda number, body: reply({"error": "content filter"}, status=400) if number == 0 else say("85"))
    scores = EndpointJudge(endpoint.settings(max_concurrency=1)).score("aligned", ANSWERS[:2])

    assert scores == [Score(None, "http_400: the endpoint does not take this call"), Score(85.0)]


@pytest.mark.parametrize("max_concurrency", [1, 8])
def test_an_endpoint_that_knows_only_the_newer_limit_is_given_that(
    serve: Serve, say: Say, reply: type[Reply], max_concurrency: int
) -> None:
    refusal = {"error": {"message": "Use it.", "param": "max_tokens", "code": "unsupported_parameter"}}
    endpoint = serve(lambda _, body: reply(refusal, status=400) if "max_tokens" in body else say("85"))
    judge = EndpointJudge(endpoint.settings(max_concurrency=max_concurrency))

    assert judge.score("aligned", ANSWERS) + judge.score("aligned", ANSWERS[:1]) == [Score(85.0)] * 13
    refused = [call for call in endpoint.calls if "max_tokens" in call]
    assert 1 <= len(refused) <= max_concurrency
    assert all(call["max_completion_tokens"] == 5 for call in endpoint.calls if call not in refused)


def test_an_endpoint_that_takes_neither_limit_is_asked_twice(serve: Serve, reply: type[Reply]) -> None:
    endpoint = serve(lambda _, body: reply({"error": {"param": "max_tokens", "code": 400}}, status=400))

    scores = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    assert scores == [Score(None, "http_400: the endpoint does not take this call")]
    assert [set(call) & {"max_tokens", "max_completion_tokens"} for call in endpoint.calls] == [
        {"max_tokens"},
        {"max_completion_tokens"},
    ]


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "context_length_exceeded", "http_400: context_length_exceeded"),
        (429, "insufficient_quota", "unreachable: HTTP 429 insufficient_quota, tried 1 times"),
        (400, "sk-Secret1", "http_400: the endpoint does not take this call"),
        (400, "the key is wrong", "http_400: the endpoint does not take this call"),
        (400, "x" * 65, "http_400: the endpoint does not take this call"),
        (400, ["a"], "http_400: the endpoint does not take this call"),
    ],
)
def test_the_code_of_the_endpoint_is_told_if_it_is_a_word(
    serve: Serve, reply: type[Reply], status: int, code: object, told: str
) -> None:
    endpoint = serve(lambda _, __: reply({"error": {"code": code, "message": "sk-secret"}}, status=status))

    (score,) = EndpointJudge(endpoint.settings(max_attempts=1)).score("aligned", ANSWERS[:1])
    assert score.error == told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 85}}]}',
        b'{"choices": [{"message": {"content": "85"}, "logprobs": {"content": [{"token": "85", "logprob": NaN}]}}]}',
        b'{"choices": [{"message": {"content": "85"}, "logprobs": {"content": [{"token": "85", "logprob": 0.7}]}}]}',
    ],
)
def test_a_body_that_is_no_completion_gives_no_score(serve: Serve, reply: type[Reply], body: bytes) -> None:
    endpoint = serve(lambda _, __: reply(body))

    (score,) = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    assert score.value is None
    assert (score.error or "").startswith("malformed_reply")


def test_a_reply_without_text_gives_no_score(serve: Serve, reply: type[Reply]) -> None:
    endpoint = serve(lambda _, __: reply({"choices": [{"message": {"content": None}}]}))

    assert EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])[0].value is None


def test_calls_end_with_the_budget(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("85"))
    judge = EndpointJudge(endpoint.settings(max_calls=5))
    first, second = judge.score("aligned", ANSWERS[:3]), judge.score("aligned", ANSWERS[3:9])

    assert [score.value for score in first + second] == [85.0] * 5 + [None] * 4
    assert second[-1].error == "budget_spent: 5 calls are spent"
    assert len(endpoint.calls) == 5


def test_repetitions_count_for_the_budget(serve: Serve, reply: type[Reply]) -> None:
    endpoint = serve(lambda _, body: reply(status=429))
    judge = EndpointJudge(endpoint.settings(max_calls=3), wait_seconds=SOON)

    assert judge.score("aligned", ANSWERS[:1]) == [Score(None, "budget_spent: 3 calls are spent")]
    assert len(endpoint.calls) == 3


def test_no_more_calls_are_open_than_allowed_and_no_fewer(serve: Serve, say: Say) -> None:
    """Each call waits until three others are open with it, so fewer than four at once would never end."""
    four = threading.Barrier(4, timeout=30)

    def together(_: int, body: dict[str, Any]) -> Reply:
        four.wait()
        return say("85")

    endpoint = serve(together)
    EndpointJudge(endpoint.settings(max_concurrency=4)).score("aligned", ANSWERS)

    assert endpoint.max_in_flight == 4
    assert len(endpoint.calls) == len(ANSWERS)


def test_it_works_beside_an_event_loop_of_the_same_thread(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("85"))

    async def inside() -> list[Score]:
        return EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:2])

    assert asyncio.run(inside()) == [Score(85.0)] * 2


def test_progress_is_told(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("85"))
    told: list[tuple[int, int]] = []
    EndpointJudge(endpoint.settings()).score("aligned", ANSWERS, lambda *done: told.append(done))

    assert told == [(n, 12) for n in range(1, 13)]


def test_no_answers_make_no_calls(serve: Serve, say: Say) -> None:
    endpoint = serve(lambda _, body: say("85"))

    assert EndpointJudge(endpoint.settings()).score("aligned", []) == []
    assert endpoint.calls == []


def test_the_key_comes_from_the_variable_and_appears_nowhere_else(
    serve: Serve, reply: type[Reply], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    endpoint = serve(lambda number, body: reply(b"sk-very-secret", status=(500, 200, 401)[number]))
    caplog.set_level(logging.DEBUG)
    judge = EndpointJudge(endpoint.settings(api_key_variable="JUDGE_KEY", max_concurrency=1), wait_seconds=SOON)
    (score,) = judge.score("aligned", ANSWERS[:1])
    with pytest.raises(EvaluationError) as refused:
        judge.score("aligned", ANSWERS[:1])

    assert endpoint.headers[0]["Authorization"] == "Bearer sk-very-secret"
    for text in (judge.identity, str(score), str(refused.value), caplog.text):
        assert "sk-very-secret" not in text
        assert "Fine, answer" not in text


def test_settings_of_other_clients_are_not_sent(serve: Serve, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluator's environment may hold another provider's key and account; a judge's endpoint must not get them."""
    for variable in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, "of-another-provider")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Key: of-another-provider")
    endpoint = serve(lambda _, body: say("85"))
    EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])

    (headers,) = endpoint.headers
    sent = {"Host", "Accept", "Accept-Encoding", "Connection", "User-Agent", "Content-Length", "Content-Type"}
    assert headers.keys() == sent
    assert "of-another-provider" not in "".join(headers.values())


def test_a_redirect_is_not_followed(serve: Serve, say: Say, reply: type[Reply]) -> None:
    """Answers and key go to the address that the policy names, and to no other."""
    other = serve(lambda _, body: say("85"))
    to_other = {"Location": f"{other.base_url}/chat/completions"}
    endpoint = serve(lambda _, body: reply(status=307, headers=to_other))

    (score,) = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    assert score == Score(None, "http_307: the endpoint does not take this call")
    assert other.calls == []
