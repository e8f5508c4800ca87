"""How a plan is sent: what waits, what stops, and what is only told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gateway.cli.openai_import.exported import read_exports
from gateway.cli.openai_import.plan import make_plan
from gateway.cli.openai_import.submission import TRIES, Submission
from gateway.errors import ApiError
from policies.cli.progress_display import Lines
from tests.gateway.cli.openai_import.exports import file_object, rows, save

BUSY = httpx.Response(429, headers={"retry-after": "7"}, json={"error": {"message": "wait", "code": "busy"}})
FULL = httpx.Response(429, json={"error": {"message": "too many", "param": None, "code": "quota_exceeded"}})
NO_FILES = httpx.Response(200, json={"data": [], "has_more": False})


def submission_of_one_file(
    folder: Path, answer: Callable[[httpx.Request], httpx.Response]
) -> tuple[Submission, list[float]]:
    """A submission to a gateway that answers so, and the times that it slept."""
    save(folder, objects=[file_object("file-a", rows())], contents={"file-a.jsonl": rows()})
    plan = make_plan(read_exports([folder]), [folder], models={}, all_jobs=False)
    slept: list[float] = []
    client = httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(answer))
    return Submission(client, plan, sleep=slept.append), slept


def test_request_that_shall_come_again_comes_again_with_the_whole_file(tmp_path: Path) -> None:
    uploads: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return NO_FILES
        uploads.append(request.read())
        return BUSY if len(uploads) < 3 else httpx.Response(200, json={"id": "file-new", "bytes": len(rows())})

    submission, slept = submission_of_one_file(tmp_path, answer)
    submission.run(Lines(print, float))
    assert submission.files[0].here == "file-new"
    assert slept == [7.0, 7.0]
    assert all(rows() in upload for upload in uploads)


def test_gateway_that_stays_busy_is_given_up(tmp_path: Path) -> None:
    submission, slept = submission_of_one_file(tmp_path, lambda request: NO_FILES if request.method == "GET" else BUSY)
    with pytest.raises(ApiError, match="wait"):
        submission.run(Lines(print, float))
    assert len(slept) == TRIES - 1


def test_quota_that_is_used_up_stops_at_once(tmp_path: Path) -> None:
    submission, slept = submission_of_one_file(tmp_path, lambda request: NO_FILES if request.method == "GET" else FULL)
    with pytest.raises(ApiError) as error:
        submission.run(Lines(print, float))
    assert error.value.code == "quota_exceeded"
    assert slept == []


def test_file_that_the_gateway_refuses_is_told(tmp_path: Path) -> None:
    refusal = httpx.Response(413, json={"error": {"message": "too large", "param": "file", "code": "file_too_large"}})
    submission, _ = submission_of_one_file(tmp_path, lambda request: NO_FILES if request.method == "GET" else refusal)
    submission.run(Lines(print, float))
    assert (submission.files[0].state, submission.files[0].why) == ("refused", "too large (file_too_large)")
