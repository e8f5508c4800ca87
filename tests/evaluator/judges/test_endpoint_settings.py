"""What an endpoint judge makes of its settings and of Retry-After, without any call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import ValidationError

from evaluator.judges.openai_compatible import MAX_RETRY_AFTER_SECONDS, EndpointJudge, retry_after_seconds
from policies.contract.judges import OpenAiCompatibleJudge, Panel
from policies.errors import EvaluationError


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_missing_key_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(EvaluationError, match="environment variable JUDGE_KEY"):
        EndpointJudge(OpenAiCompatibleJudge(base_url="https://x.example/v1", model="m", api_key_variable="JUDGE_KEY"))


def test_a_key_in_the_address_is_refused() -> None:
    with pytest.raises(EvaluationError, match="use api_key_variable") as error:
        EndpointJudge(OpenAiCompatibleJudge(base_url="https://me:sk-secret@x.example/v1", model="m"))
    assert "sk-secret" not in str(error.value)


def test_whatever_changes_scores_changes_the_identity() -> None:
    def identity(**changes: object) -> str:
        settings = {"base_url": "https://x.example/v1", "model": "m"} | changes
        return EndpointJudge(OpenAiCompatibleJudge.model_validate(settings)).identity

    changed: list[dict[str, object]] = [
        {"model": "n"},
        {"base_url": "https://y.example/v1"},
        {"top_logprobs": 0},
        {"thinking_tokens": 100},
        {"thinking_tokens": 200},
        {"replies": "json_schema"},
        {"replies": "json_schema", "thinking_tokens": 100},
    ]
    assert len({identity(), *(identity(**change) for change in changed)}) == 8
    assert identity(max_concurrency=2, max_calls=9) == identity()
    assert identity(thinking_tokens=100, top_logprobs=0) == identity(thinking_tokens=100)


def test_settings_from_before_judges_could_think_keep_their_digest_and_their_scores() -> None:
    """Both were taken down by the code from before."""
    settings = OpenAiCompatibleJudge(base_url="https://x.example/v1", model="m")
    assert settings.digest == "sha256:820ccdc2e4c0732b5c20c0e2bec8899a748c47ff6e05f412ab1a6bc9118c85e1"
    assert Panel(judges=(settings,)).digest == "sha256:e08eac082f6fa81346804c68f6797ff1ec601692eb818c4818c4ea1036a02a5f"
    assert EndpointJudge(settings).identity == (
        "openai_compatible https://x.example/v1 m top 20 scoring 1 "
        "sha256:5c23a57cede697407be5ff710e5e477bb5f0a4d526c4f203978ad95c4b7c465d"
    )


def test_what_is_said_as_it_is_by_default_changes_no_digest() -> None:
    spoken = {"base_url": "https://x.example/v1", "model": "m"}
    said = OpenAiCompatibleJudge.model_validate(spoken | {"thinking_tokens": 0, "replies": "number"})
    assert said.digest == OpenAiCompatibleJudge.model_validate(spoken).digest


@pytest.mark.parametrize(
    "change",
    [{"thinking_tokens": -1}, {"thinking_tokens": 131_073}, {"thinking_tokens": None}, {"replies": "json_object"}],
)
def test_settings_that_say_nothing_clear_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OpenAiCompatibleJudge.model_validate({"base_url": "https://x.example/v1", "model": "m"} | change)


def test_retry_after_is_read_in_seconds_and_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    assert retry_after_seconds("7") == 7.0
    assert 90 < (retry_after_seconds(soon) or 0) <= 100
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_seconds("1e9") == MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("header", [None, "", "soon", "nan", "Wed, 21 Oct 2015 07:28:00 -0000"])
def test_a_retry_after_that_can_not_be_read_is_left_out(header: str | None) -> None:
    assert retry_after_seconds(header) is None
