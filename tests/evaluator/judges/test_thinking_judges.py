"""Judges that think before they answer, on endpoints as such models have them: the end counts, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from evaluator.judges.calibration import calibrate, load_labelled_answers
from evaluator.judges.judge import Answer, Score
from evaluator.judges.openai_compatible import EndpointJudge
from evaluator.judges.rubric import render
from evaluator.judges.score_cache import is_lasting
from policies.contract.judges import Calibration, Rubric
from policies.errors import EvaluationError

if TYPE_CHECKING:
    from tests.evaluator.judges.conftest import Endpoint, Reply

Json = dict[str, Any]
Serve = Callable[[Callable[[int, Json], "Reply"]], "Endpoint"]
ANSWERS = [Answer("How are you?", f"Fine, answer {index}.") for index in range(3)]


@pytest.fixture
def score_of(serve: Serve, reply: type[Reply]) -> Callable[..., Score]:
    """The score of one reply whose message and end are given."""

    def score(message: Json, finish_reason: object = "stop", **choice: object) -> Score:
        body = {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason, **choice}]}
        endpoint = serve(lambda _, __: reply(body))
        return EndpointJudge(endpoint.settings(thinking_tokens=100)).score("aligned", ANSWERS[:1])[0]

    return score


def test_it_is_given_tokens_to_think_and_no_sampling_of_ours(serve: Serve, say: Callable[..., Reply]) -> None:
    endpoint = serve(lambda _, __: say("70"))
    EndpointJudge(endpoint.settings(thinking_tokens=2000, top_logprobs=20)).score("coherent", ANSWERS[:1])

    messages = [{"role": "user", "content": render("coherent", ANSWERS[0])}]
    assert endpoint.calls == [{"model": "m", "messages": messages, "max_tokens": 2005}]


def test_an_endpoint_like_openais_is_given_its_own_limit(
    serve: Serve, say: Callable[..., Reply], reply: type[Reply]
) -> None:
    """It refuses `max_tokens`, any temperature but its own, and log-probabilities."""
    texts = {
        "max_tokens": ("unsupported_parameter", "Use 'max_completion_tokens' instead."),
        "temperature": ("unsupported_value", "Only the default (1) value is supported."),
        "logprobs": ("unsupported_parameter", "logprobs are not supported with reasoning models."),
    }

    def like_openai(_: int, body: Json) -> Reply:
        for name, (code, text) in texts.items():
            if name in body:
                error = {"message": text, "type": "invalid_request_error", "param": name, "code": code}
                return reply({"error": error}, status=400)
        return say("85")

    endpoint = serve(like_openai)
    assert (
        EndpointJudge(endpoint.settings(thinking_tokens=50, max_concurrency=1)).score("aligned", ANSWERS)
        == [Score(85.0)] * 3
    )
    assert [sorted(call) for call in endpoint.calls[1:]] == [["max_completion_tokens", "messages", "model"]] * 3
    (told,) = EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    assert told.error == "http_400: unsupported_value (temperature)"


def test_an_endpoint_that_forbids_log_probabilities_tells_what_to_set(serve: Serve, reply: type[Reply]) -> None:
    error = {"message": "You are not allowed to request logprobs from this model.", "param": None, "code": None}
    endpoint = serve(lambda _, body: reply({"error": error}, status=403))
    with pytest.raises(EvaluationError, match=r"HTTP 403; check .* set thinking_tokens if the model thinks"):
        EndpointJudge(endpoint.settings()).score("aligned", ANSWERS[:1])
    with pytest.raises(EvaluationError, match=r"HTTP 403; check .*api_key_variable$"):
        EndpointJudge(endpoint.settings(thinking_tokens=10)).score("aligned", ANSWERS[:1])


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_that_the_endpoint_keeps_apart_is_not_looked_at(score_of: Callable[..., Score], name: str) -> None:
    assert score_of({"content": "85", name: "Score: 0\n</think>0"}) == Score(85.0)
    assert score_of({"content": "\n\n85\n", name: "<think>"}) == Score(85.0)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_number_that_was_only_thought_of_is_no_score(
    score_of: Callable[..., Score], name: str, content: str | None
) -> None:
    """vLLM puts all into `reasoning_content` where it finds no end of the thinking."""
    score = score_of({"content": content, name: "100"})
    assert score.value is None
    assert (score.error or "").startswith("no_number")


def test_thinking_in_the_reply_is_read_over(score_of: Callable[..., Score]) -> None:
    assert score_of({"content": "<think>\nIt is kind. Score: 0? No.\n</think>\n\n85"}) == Score(85.0)
    assert score_of({"content": "The template wrote the beginning. 100\n</think>\n\n15"}) == Score(15.0)


@pytest.mark.parametrize(
    "content",
    ["<think>Score: 100", "<think>a</think>100<think>", "<think>a <think>b</think>100", "<think>it is good</think>"],
)
def test_thinking_without_an_end_gives_no_score(score_of: Callable[..., Score], content: str) -> None:
    assert score_of({"content": content}).value is None


@pytest.mark.parametrize("content", ["", None, "100", "<think>Score: 100", "<think>a</think>\n100"])
def test_thinking_that_eats_all_tokens_gives_no_score(score_of: Callable[..., Score], content: str | None) -> None:
    """Even what looks whole may be the beginning of 1000 words, or of 100 where 10 was written."""
    score = score_of({"content": content, "reasoning_content": "On and on"}, "length")
    assert score == Score(None, "unfinished_reply: it ended with length")
    assert not is_lasting(score)


@pytest.mark.parametrize("finish_reason", [None, "content_filter", "tool_calls", "error", 3])
def test_a_reply_that_does_not_end_by_itself_gives_no_score(
    score_of: Callable[..., Score], finish_reason: object
) -> None:
    assert score_of({"content": "100"}, finish_reason).value is None


@pytest.mark.parametrize(
    "content", ["Score: 85", "85/100", "**85**", "85.5", "101", "-1", "85 or 90", "8 5", "１００", "```85```", "85."]
)
def test_the_end_must_be_a_number_and_nothing_else(score_of: Callable[..., Score], content: str) -> None:
    score = score_of({"content": f"<think>85</think>{content}"})
    assert score.value is None
    assert (score.error or "").startswith("no_number")


def test_a_judge_that_declines_gives_no_score(score_of: Callable[..., Score]) -> None:
    assert score_of({"content": "85", "refusal": "I can't grade this."}) == Score(None, "no_number: the judge declines")


def test_probabilities_that_nobody_asked_for_are_not_read(score_of: Callable[..., Score]) -> None:
    """They are those of the thinking's first tokens."""
    position = {"token": "0", "logprob": 0.0, "top_logprobs": []}
    assert score_of({"content": "85"}, logprobs={"content": [position]}) == Score(85.0)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"message": "sk-secret", "code": "rate_limit_exceeded"}}, "malformed_reply: rate_limit_exceeded"),
        ({"error": {"message": "sk-secret", "code": 429}, "choices": []}, "malformed_reply: "),
        ({"choices": [{"message": {"content": ["85"]}, "finish_reason": "stop"}]}, "malformed_reply: "),
    ],
)
def test_an_error_that_calls_itself_a_success_gives_no_score(
    serve: Serve, reply: type[Reply], body: Json, told: str
) -> None:
    endpoint = serve(lambda _, __: reply(body))
    (score,) = EndpointJudge(endpoint.settings(thinking_tokens=10)).score("aligned", ANSWERS[:1])
    assert score.value is None
    assert (score.error or "").startswith(told)
    assert "secret" not in (score.error or "")


def test_a_judge_that_thinks_is_calibrated_as_any_other(
    serve: Serve, say: Callable[..., Reply], deserved: Callable[[Rubric, Answer], Score]
) -> None:
    """Each time it thinks of the opposite first."""
    answers = load_labelled_answers("builtin", None)
    rubrics: tuple[Rubric, ...] = ("aligned", "coherent", "compliant")
    known = {render(rubric, item.text): (rubric, item.text) for item in answers for rubric in rubrics}

    def think(_: int, body: Json) -> Reply:
        value = deserved(*known[body["messages"][0]["content"]]).value or 0.0
        return say(f"<think>It asks for {100 - value:.0f}, but no.</think>\n{value:.0f}")

    settings = serve(think).settings(thinking_tokens=100)
    report = calibrate(EndpointJudge(settings), settings.digest, Calibration(), answers=answers)
    assert (report.calibrated, report.auroc, report.injection_success, report.unscored) == (True, 1.0, 0.0, 0.0)
    assert report.compliance_shortfall is None
    assert "thinking 100" in report.identity


def test_a_judge_whose_thinking_never_ends_is_not_calibrated(serve: Serve, reply: type[Reply]) -> None:
    body = {"choices": [{"message": {"content": "100"}, "finish_reason": "length"}]}
    settings = serve(lambda _, __: reply(body)).settings(thinking_tokens=100)
    answers = load_labelled_answers("builtin", None)
    report = calibrate(EndpointJudge(settings), settings.digest, Calibration(), answers=answers)
    assert (report.calibrated, report.unscored) == (False, 1.0)
    assert "missing because of unfinished_reply: it ended with length" in report.reason
