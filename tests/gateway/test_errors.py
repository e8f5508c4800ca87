"""One error body, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gateway import errors
from gateway.errors import ApiError, add_error_handlers
from gateway.http.access_log import AccessLog
from policies.errors import DatasetError, IntegrityError

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway


@pytest.fixture
def failing() -> TestClient:
    """An application whose endpoints fail in every way."""
    app = FastAPI()
    add_error_handlers(app)
    app.add_middleware(AccessLog)
    raised: dict[str, Exception] = {
        "/own": errors.NotFound("No such thing.", "thing", "thing_not_found"),
        "/dataset": DatasetError("line 3: bad", "training_file"),
        "/integrity": IntegrityError("artifact /secret/path has other bytes"),
        "/crash": RuntimeError("password=hunter2"),
    }
    for path, error in raised.items():
        app.add_api_route(path, raising(error), response_model=None)
    return TestClient(app)


def raising(error: Exception) -> Callable[[], None]:
    def endpoint() -> None:
        raise error

    return endpoint


@pytest.mark.parametrize(
    ("path", "status", "code", "param"),
    [
        ("/own", 404, "thing_not_found", "thing"),
        ("/dataset", 400, "invalid_training_file", "training_file"),
        ("/integrity", 500, "internal_error", None),
        ("/crash", 500, "internal_error", None),
        ("/nowhere", 404, "unknown_url", None),
    ],
)
def test_failure_is_answered_with_the_error_body(
    failing: TestClient, path: str, status: int, code: str, param: str | None
) -> None:
    answer = failing.get(path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == ("server_error" if status == 500 else "invalid_request_error")
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/integrity", "/crash"])
def test_internal_failure_tells_nothing_of_its_cause(failing: TestClient, path: str) -> None:
    text = failing.get(path).text
    assert "secret" not in text
    assert "hunter2" not in text


def test_wrong_method_is_405(failing: TestClient) -> None:
    answer = failing.post("/own")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "PROPFIND"])
@pytest.mark.parametrize(
    ("path", "allowed"), [("/v1/files", "GET, POST"), ("/v1/files/file-x", "DELETE, GET"), ("/healthz", "GET")]
)
def test_405_names_every_method_of_the_url(live_gateway: LiveGateway, method: str, path: str, allowed: str) -> None:
    answer = httpx.request(method, live_gateway.url + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_wrong_field_is_a_400_that_names_it(live_gateway: LiveGateway) -> None:
    headers = {"authorization": f"Bearer {live_gateway.tenant_key()}"}
    answer = httpx.get(f"{live_gateway.url}/v1/files", params={"limit": 0}, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "limit"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_huge_json_body_is_413(live_gateway: LiveGateway, is_chunked: bool) -> None:
    piece = b" " * (1 << 20)
    content = iter([piece] * 9) if is_chunked else piece * 9
    headers = {"content-type": "application/json", "authorization": f"Bearer {live_gateway.tenant_key()}"}
    answer = httpx.post(f"{live_gateway.url}/v1/fine_tuning/jobs", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_request_id_of_the_caller_is_kept_where_it_is_a_plain_token(live_gateway: LiveGateway) -> None:
    url = f"{live_gateway.url}/healthz"
    assert httpx.get(url, headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert httpx.get(url, headers={"x-request-id": "a b{}"}).headers["x-request-id"].startswith("req_")


def test_no_error_is_a_conflict_which_clients_would_repeat() -> None:
    def subclasses(kind: type[ApiError]) -> list[type[ApiError]]:
        return [kind, *(inner for child in kind.__subclasses__() for inner in subclasses(child))]

    found = subclasses(ApiError)
    assert len(found) >= 8
    assert 409 not in {kind.status for kind in found}
