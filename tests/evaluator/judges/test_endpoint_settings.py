"""What an endpoint judge makes of its settings and of Retry-After, without any call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from evaluator.judges.openai_compatible import MAX_RETRY_AFTER_SECONDS, EndpointJudge, retry_after_seconds
from policies.contract.judges import OpenAiCompatibleJudge
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

    changed: list[dict[str, object]] = [{"model": "n"}, {"base_url": "https://y.example/v1"}, {"top_logprobs": 0}]
    assert len({identity(), *(identity(**change) for change in changed)}) == 4
    assert identity(max_concurrency=2, max_calls=9) == identity()


def test_retry_after_is_read_in_seconds_and_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    assert retry_after_seconds("7") == 7.0
    assert 90 < (retry_after_seconds(soon) or 0) <= 100
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_seconds("1e9") == MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("header", [None, "", "soon", "nan", "Wed, 21 Oct 2015 07:28:00 -0000"])
def test_a_retry_after_that_can_not_be_read_is_left_out(header: str | None) -> None:
    assert retry_after_seconds(header) is None
