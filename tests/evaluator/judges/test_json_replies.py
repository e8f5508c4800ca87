"""Judges that reply in JSON by a schema: read as strictly as if the endpoint had never heard of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaluator.judges.json_score import score_of_json
from evaluator.judges.judge import Answer, Score
from evaluator.judges.openai_compatible import EndpointJudge
from evaluator.judges.rubric import JSON_DIGEST, render
from tests.growth import LINEAR, growth

if TYPE_CHECKING:
    from tests.evaluator.judges.conftest import Endpoint, Reply

Json = dict[str, Any]
Serve = Callable[[Callable[[int, Json], "Reply"]], "Endpoint"]
ANSWER = Answer("How are you?", "Fine.")
GOLDEN = json.loads(Path(__file__).with_name("json_rubric.json").read_text())


def test_the_prompt_is_the_golden_one() -> None:
    """Of `aligned`; the scales are those of the other form."""
    assert {"digest": JSON_DIGEST, "aligned": render("aligned", ANSWER, as_json=True).splitlines()} == GOLDEN


def test_it_differs_from_the_other_form_in_its_last_sentence_alone() -> None:
    number, as_json = (render("aligned", ANSWER, as_json=flag).rpartition("Reply with") for flag in (False, True))
    assert number[0] == as_json[0]
    assert as_json[2].startswith(' one JSON object and nothing else: {"score": N}')


def test_the_endpoint_is_given_the_schema(serve: Serve, say: Callable[..., Reply]) -> None:
    endpoint = serve(lambda _, __: say('{"score": 70}'))
    judge = EndpointJudge(endpoint.settings(replies="json_schema", top_logprobs=20))

    assert judge.score("aligned", [ANSWER]) == [Score(70.0)]
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 100}},
        "required": ["score"],
        "additionalProperties": False,
    }
    assert endpoint.calls == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": render("aligned", ANSWER, as_json=True)}],
            "max_tokens": 32,
            "temperature": 0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "score", "strict": True, "schema": schema},
            },
        }
    ]


def test_a_judge_may_think_and_reply_in_json(serve: Serve, say: Callable[..., Reply]) -> None:
    endpoint = serve(lambda _, __: say('<think>{"score": 0}</think>\n{"score": 85}'))
    judge = EndpointJudge(endpoint.settings(replies="json_schema", thinking_tokens=1000))

    assert judge.score("aligned", [ANSWER]) == [Score(85.0)]
    assert (endpoint.calls[0]["max_tokens"], "temperature" in endpoint.calls[0]) == (1032, False)


def test_thinking_is_not_read_over_where_none_was_asked_for(serve: Serve, say: Callable[..., Reply]) -> None:
    endpoint = serve(lambda _, __: say('<think></think>{"score": 85}'))
    (score,) = EndpointJudge(endpoint.settings(replies="json_schema")).score("aligned", [ANSWER])
    assert score.value is None


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("unsupported_parameter", "http_400: unsupported_parameter (response_format)"),
        ("invalid_value", "http_400: invalid_value (response_format)"),
        (None, "http_400: the endpoint does not take this call (response_format)"),
    ],
)
def test_an_endpoint_without_schemas_is_asked_for_nothing_weaker(
    serve: Serve, say: Callable[..., Reply], reply: type[Reply], code: str | None, told: str
) -> None:
    refusal = {"error": {"message": "No.", "param": "response_format", "code": code}}
    endpoint = serve(lambda _, body: reply(refusal, status=400) if "response_format" in body else say("85"))
    scores = EndpointJudge(endpoint.settings(replies="json_schema", max_concurrency=1)).score("aligned", [ANSWER] * 2)
    assert scores == [Score(None, told)] * 2
    assert all("response_format" in call for call in endpoint.calls)


def test_a_reply_that_was_cut_off_gives_no_score(serve: Serve, reply: type[Reply]) -> None:
    choice = {"message": {"content": '{"score": 10}'}, "finish_reason": "length"}
    endpoint = serve(lambda _, __: reply({"choices": [choice]}))
    (score,) = EndpointJudge(endpoint.settings(replies="json_schema")).score("aligned", [ANSWER])
    assert score == Score(None, "unfinished_reply: it ended with length")


def test_a_judge_that_declines_gives_no_score(serve: Serve, reply: type[Reply]) -> None:
    choice = {"message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"}
    endpoint = serve(lambda _, __: reply({"choices": [choice]}))
    (score,) = EndpointJudge(endpoint.settings(replies="json_schema")).score("aligned", [ANSWER])
    assert score == Score(None, "no_number: the judge declines")


@pytest.mark.parametrize(
    ("text", "score"), [('{"score": 0}', 0.0), (' {\n "score" : 100 }\n', 100.0), ('{"sc\\u006fre":7}', 7.0)]
)
def test_a_score_in_range_is_read(text: str, score: float) -> None:
    assert score_of_json(text) == Score(score)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "85",
        "null",
        "[85]",
        '["score", 85]',
        "{}",
        '{"score": 85',
        '{"score": 85} {"score": 0}',
        '{"score": 85, "score": 0}',
        '{"score": 0, "sc\\u006fre": 85}',
        '{"score": 85, "reason": "kind"}',
        '{"Score": 85}',
        '{"result": {"score": 85}}',
        '{"score": {"score": 85}}',
        '{"score": 101}',
        '{"score": -1}',
        '{"score": 85.0}',
        '{"score": 8.5e1}',
        '{"score": 1e999}',
        '{"score": NaN}',
        '{"score": Infinity}',
        '{"score": true}',
        '{"score": null}',
        '{"score": "85"}',
        '{"score": [85]}',
        '{"score": 085}',
        '{"score": ' + "9" * 5000 + "}",
        '```json\n{"score": 85}\n```',
        'Score: {"score": 85}',
        '{"score": 85}\ud800',
        "[" * 100_000,
    ],
)
def test_anything_else_is_no_score(text: str) -> None:
    score = score_of_json(text)
    assert score.value is None
    assert (score.error or "").startswith("no_number")
    assert "85" not in (score.error or "")


@pytest.mark.parametrize("piece", ['{"score":', "[", '"a",', "1", " "])
def test_any_reply_takes_the_time_of_its_length(piece: str) -> None:
    assert growth(lambda n: piece * n, score_of_json, 50_000) < LINEAR
