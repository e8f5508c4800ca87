"""Input that no store can hold, or that two readers would read differently, is refused where it arrives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from openai import OpenAI

from gateway.http.input_gate import MAX_PATH_BYTES, MAX_QUERY_BYTES
from gateway.kit.json_body import MAX_DEPTH, MAX_VALUES, parse_json
from gateway.tables.jobs import Job
from policies.contract.jobs import JobSpec
from policies.contract.tasks import CLAIMS_PATH, EVENTS_PATH
from policies.contract.worker_api import MAX_DATA_CHARACTERS, MAX_EVENT_DATA, Progress, WorkerEvent
from tests.gateway.hand_worker import (
    BASE_MODEL_NAME,
    HandWorker,
    error_code,
    job_row,
    submit,
    submit_queued,
    upload,
    validate_here,
)

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway

JOBS = "/v1/fine_tuning/jobs"
WRONG = {
    "nul_in_a_key": r'{"metadata": {"a\u0000b": "c"}}',
    "nul_in_a_value": r'{"metadata": {"a": "\u0000"}}',
    "nul_in_the_suffix": r'{"suffix": "a\u0000"}',
    "surrogate_in_a_key": r'{"metadata": {"\ud800": "c"}}',
    "surrogate_in_a_value": r'{"metadata": {"a": "\udfff"}}',
    "surrogate_in_integrations": r'{"integrations": [{"type": "\ud800"}]}',
    "surrogate_in_an_unknown_field": r'{"\ud800": 1}',
    "nan": '{"hyperparameters": {"learning_rate_multiplier": NaN}}',
    "infinity": '{"hyperparameters": {"learning_rate_multiplier": Infinity}}',
    "number_that_becomes_infinity": '{"hyperparameters": {"learning_rate_multiplier": 1e999}}',
    "integer_of_65_bits": '{"seed": 18446744073709551616}',
    "integer_of_5000_digits": '{"seed": ' + "9" * 5000 + "}",
    "key_twice": '{"seed": 1, "seed": 2}',
    "inner_key_twice": '{"metadata": {"a": "b", "a": "c"}}',
    "deep": '{"integrations": [' + '{"a": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH + "]}",
    "very_deep": "[" * 100_000 + "]" * 100_000,
    "not_json": '{"model": ',
}


@pytest.fixture
def http(live_gateway: LiveGateway) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {live_gateway.tenant_key()}"}
    with httpx.Client(base_url=live_gateway.url, headers=headers, verify=False, timeout=60) as client:
        yield client


def body_with(client: httpx.Client, more: str) -> bytes:
    """A sound request for a job, with the members of the object `more` in front."""
    file = client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", b"{}\n")}).json()["id"]
    sound = f'"model": "{BASE_MODEL_NAME}", "training_file": "{file}"}}'
    return (more[:-1] + ", " + sound if more.startswith("{") and more.endswith("}") else more).encode()


def refused(answer: httpx.Response) -> str:
    """The code of a 400 with the one error body."""
    assert answer.status_code == 400, answer.text[:300]
    code: str = answer.json()["error"]["code"]
    return code


@pytest.mark.parametrize("name", WRONG)
def test_such_json_is_a_400_and_leaves_nothing_behind(http: httpx.Client, name: str) -> None:
    headers = {"content-type": "application/json", "idempotency-key": "one"}
    content = body_with(http, WRONG[name])
    assert refused(http.post(JOBS, content=content, headers=headers)) == "invalid_json"
    listed = http.get(JOBS)
    assert (listed.status_code, listed.json()["data"]) == (200, [])


def test_a_workers_body_of_very_many_values_is_refused() -> None:
    """A tenant's body is too small to have so many."""
    with pytest.raises(ValueError, match="more than 200000 values"):
        parse_json(b"[" + b"1," * MAX_VALUES + b"1]")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "latin-1"])
def test_json_is_utf_8_only(http: httpx.Client, encoding: str) -> None:
    """Python's parser would guess the others, a proxy in front would not."""
    content = json.dumps({"metadata": {"k": "é"}}, ensure_ascii=False).encode(encoding)
    assert refused(http.post(JOBS, content=content, headers={"content-type": "application/json"})) == "invalid_json"


def test_text_of_every_plane_comes_back_as_it_was(client: OpenAI) -> None:
    metadata = {"Schlüssel 🔑": "naïve \U0010ffff \x01\t", "'; DROP TABLE jobs; --": "%00 \\u0000"}
    job = submit(client, metadata=metadata)
    assert client.fine_tuning.jobs.retrieve(job.id).metadata == metadata
    (found,) = client.fine_tuning.jobs.list(metadata={"Schlüssel 🔑": metadata["Schlüssel 🔑"]}).data
    assert found.metadata == metadata


def parameters_of(gateway: LiveGateway) -> list[tuple[str, str]]:
    """Method and URL of every documented parameter in path or query, with `…` where its value stands."""
    found = []
    for path, methods in httpx.get(f"{gateway.url}/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            parameters = operation.get("parameters", [])
            for place in re.findall(r"\{\w+\}", path):
                found.append((method, path.replace(place, "…")))
            names = [each["name"] for each in parameters if each["in"] == "query"]
            plain = re.sub(r"\{\w+\}", "x", path)
            found += [(method, f"{plain}?{name}=…") for name in names]
    return [*found, ("get", f"{JOBS}?metadata[a]=…"), ("get", f"{JOBS}?metadata[…]=a"), ("get", "/…"), ("get", "/?a=…")]


@pytest.mark.parametrize("value", ["%00", "a%00b", "%ed%a0%80", "%ff"])
def test_nul_and_broken_utf_8_in_a_url_are_a_400(live_gateway: LiveGateway, http: httpx.Client, value: str) -> None:
    places = parameters_of(live_gateway)
    assert len(places) >= 30
    for method, url in places:
        assert refused(http.request(method, url.replace("…", value))) == "invalid_url", (method, url)


def test_urls_are_bounded(http: httpx.Client) -> None:
    assert refused(http.get("/v1/files/" + "a" * MAX_PATH_BYTES)) == "invalid_url"
    assert refused(http.get(JOBS + "?a=" + "b" * MAX_QUERY_BYTES)) == "invalid_url"
    assert refused(http.get(JOBS + "?" + "a=b&" * 2000)) == "invalid_url"
    assert refused(http.get("/v1/files/" + "a" * 65)) == "invalid_request"


@pytest.mark.parametrize(
    "query",
    [
        "&".join(f"metadata[{n}]=a" for n in range(17)),
        f"metadata[{'k' * 65}]=a",
        "metadata[]=a",
        "metadata[a][b]=c",
        "metadata[][a]=b",
        f"metadata[k]={'v' * 513}",
        "after=" + "x" * 65,
        "limit=" + "9" * 5000,
    ],
)
def test_filters_are_bounded(http: httpx.Client, query: str) -> None:
    refused(http.get(f"{JOBS}?{query}"))


def test_as_many_filters_as_a_job_has_pairs_find_it(client: OpenAI) -> None:
    metadata = {f"{n}" + "ü" * 60: "ä" * 100 for n in range(10)}
    job = submit(client, metadata=metadata)
    assert [found.id for found in client.fine_tuning.jobs.list(metadata=metadata)] == [job.id]


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb", b"\xff", b"\xc3\xa9"])
def test_idempotency_key_is_printable_ascii(http: httpx.Client, key: str | bytes) -> None:
    headers: Any = {"content-type": "application/json", "idempotency-key": key}  # Any: bytes are for this test alone
    assert refused(http.post(JOBS, content=body_with(http, "{}").replace(b"{, ", b"{"), headers=headers)) == (
        "invalid_idempotency_key"
    )


@pytest.mark.parametrize("number", [5e-324, 1e-7, 1.1e4, 1e308])
@pytest.mark.parametrize("where", ["hyperparameters", "method"])
def test_learning_rate_that_nothing_can_be_trained_with_is_refused(
    http: httpx.Client, number: float, where: str
) -> None:
    hyperparameters = {"learning_rate_multiplier": number}
    nested = {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}
    more = {where: hyperparameters if where == "hyperparameters" else nested}
    answer = http.post(JOBS, content=body_with(http, json.dumps(more)), headers={"content-type": "application/json"})
    refused(answer)
    assert answer.json()["error"]["param"].endswith("hyperparameters.learning_rate_multiplier")


def test_beta_that_no_preference_can_move_is_refused(http: httpx.Client) -> None:
    more = {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 5e-324}}}}
    answer = http.post(JOBS, content=body_with(http, json.dumps(more)), headers={"content-type": "application/json"})
    refused(answer)
    assert answer.json()["error"]["param"] == "method.dpo.hyperparameters.beta"


def test_job_that_was_stored_with_such_a_rate_fails_and_says_why(live_gateway: LiveGateway, client: OpenAI) -> None:
    """2e-4 · 5e-324 is 0, a rate that no job can have."""
    job_id = submit(client).id
    with live_gateway.services.database.transaction() as session:
        job = session.get_one(Job, job_id)
        numbers = job.spec["hyperparameters"] | {"learning_rate_multiplier": 5e-324}
        spec = JobSpec.model_validate(job.spec | {"hyperparameters": numbers})
        job.spec, job.spec_digest = spec.model_dump(mode="json"), spec.digest
    validate_here(live_gateway.services, job_id)
    assert error_code(live_gateway.services, job_id) == "unusable_hyperparameters"
    assert client.fine_tuning.jobs.retrieve(job_id).status == "failed"


@pytest.mark.parametrize(
    "seconds",
    ["0000000003600000000000", "00003600", "3600.0", "+3600", "１２３４５６", "", "3599", "2592001", "-1", "1e5"],
)
def test_expiry_is_the_number_that_was_checked(http: httpx.Client, seconds: str) -> None:
    """The first nine digits of the first one are 3."""
    fields = {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
    answer = http.post("/v1/files", data=fields, files={"file": ("a.jsonl", b"{}\n")})
    assert refused(answer) == "invalid_expiry"


@pytest.mark.parametrize(
    "part",
    [
        b'name="file"; filename="a\x00.jsonl"',
        b'name="file"; filename="\xff.jsonl"',
        b'name="\xff"',
        b'name="a\x00b"',
    ],
)
def test_names_of_a_form_are_text(http: httpx.Client, part: bytes) -> None:
    body = b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n\r\nx\r\n--b--\r\n"
    answer = http.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert refused(answer) in {"invalid_multipart", "unsupported_file"}


@pytest.mark.parametrize("name", ["nul_in_a_value", "surrogate_in_a_key", "very_deep", "nan", "key_twice"])
def test_workers_are_held_to_the_same(live_gateway: LiveGateway, name: str) -> None:
    headers = live_gateway.worker_headers() | {"content-type": "application/json"}
    for path in (CLAIMS_PATH, EVENTS_PATH.format(attempt_token="attempt_x")):
        assert refused(httpx.post(live_gateway.url + path, content=WRONG[name], headers=headers)) == "invalid_json"


def test_what_a_run_quotes_cannot_keep_its_report_from_arriving(live_gateway: LiveGateway, client: OpenAI) -> None:
    worker = HandWorker(live_gateway)
    job_id = submit_queued(live_gateway, client)
    token = worker.must_claim(job_id).attempt_token
    event = WorkerEvent(type="message", message="the model said \0 \ud800", data={"quote": "\0"})
    worker.send_events(token, event).raise_for_status()
    assert worker.heartbeat(token, Progress(step=1, total_steps=2, stage="\0", eta_seconds=1e300)) == "continue"
    newest = client.fine_tuning.jobs.list_events(job_id).data[0]
    assert newest.message == "the model said \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"
    assert job_row(live_gateway.services, job_id).estimated_finish is None
    worker.close()


@pytest.mark.parametrize("data", [{f"figure-{n}": n for n in range(MAX_EVENT_DATA + 1)}, {"n" * 201: 1}])
def test_an_event_with_more_data_than_any_run_has_is_refused(
    live_gateway: LiveGateway, client: OpenAI, data: dict[str, int]
) -> None:
    worker = HandWorker(live_gateway)
    claimed = worker.must_claim(submit_queued(live_gateway, client))
    event = {"type": "metrics", "message": "Step 1", "data": data}
    path = live_gateway.url + EVENTS_PATH.format(attempt_token=claimed.attempt_token)
    answer = httpx.post(path, json={"events": [event]}, headers=live_gateway.worker_headers())
    assert refused(answer) == "invalid_request"
    worker.close()


def test_a_long_text_in_an_events_data_is_cut(live_gateway: LiveGateway, client: OpenAI) -> None:
    worker = HandWorker(live_gateway)
    job_id = submit_queued(live_gateway, client)
    token = worker.must_claim(job_id).attempt_token
    event = WorkerEvent(type="message", message="m", data={"quote": "x" * 1_000_000})
    worker.send_events(token, event).raise_for_status()
    assert client.fine_tuning.jobs.list_events(job_id).data[0].data == {"quote": "x" * MAX_DATA_CHARACTERS}
    worker.close()


def test_too_long_a_worker_is_refused(live_gateway: LiveGateway) -> None:
    headers = live_gateway.worker_headers()
    body = {"kind": "train", "job_id": "ftjob-x", "worker": "w" * 256}
    assert refused(httpx.post(live_gateway.url + CLAIMS_PATH, json=body, headers=headers)) == "invalid_request"


def test_an_error_repeats_only_so_much_of_what_was_sent(http: httpx.Client) -> None:
    content = body_with(http, json.dumps({"k" * 100_000: 1}))
    answer = http.post(JOBS, content=content, headers={"content-type": "application/json"})
    refused(answer)
    assert len(answer.content) < 2000


def test_the_key_that_created_a_job_is_on_record(live_gateway: LiveGateway, client: OpenAI) -> None:
    key_id = job_row(live_gateway.services, submit(client).id).key_id
    assert key_id is not None
    assert key_id.startswith("key_")
    assert upload(client)
