"""A gateway whose artifacts lie in object storage: a real S3 server on this machine."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import APIStatusError, OpenAI

from gateway.settings import GatewaySettings
from policies.contract.artifacts import TreeManifest, digest_bytes
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import HandWorker, evaluate, submit_queued, train, upload
from tests.s3_server import S3Server, new_bucket


@pytest.fixture
def settings(s3_server: S3Server, tmp_path: Path, database_url: str) -> Iterator[GatewaySettings]:
    with new_bucket(s3_server) as url:
        yield gateway_settings(tmp_path, database_url=database_url, store_url=url)


@pytest.fixture
def worker(live_gateway: LiveGateway) -> Iterator[HandWorker]:
    worker = HandWorker(live_gateway)
    yield worker
    worker.close()


def get(gateway: LiveGateway, client: OpenAI, path: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {client.api_key}"}
    return httpx.get(f"{gateway.url}/v1/guardrail/{path}", headers=headers).raise_for_status()


def test_a_job_goes_from_upload_to_download(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> None:
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id)
    model = client.fine_tuning.jobs.retrieve(job_id).fine_tuned_model
    assert get(live_gateway, client, f"models/{model}/adapter").headers["x-adapter-digest"]
    listed = get(live_gateway, client, f"models/{model}/files").json()
    assert listed["expires_at"] == live_gateway.services.now() + 600
    found = {}
    for file in listed["files"]:
        with urllib.request.urlopen(file["url"]) as answer:  # a server of this test's own
            content = answer.read()
        assert len(content) == file["bytes"]
        found[file["name"]] = digest_bytes(content)
    assert TreeManifest(files=found).digest == listed["adapter"]


def test_a_storage_that_fails_is_a_503(live_gateway: LiveGateway, client: OpenAI, s3_server: S3Server) -> None:
    file_id = upload(client)
    s3_server.failures = 1000
    try:
        with pytest.raises(APIStatusError) as error:
            client.files.content(file_id)
    finally:
        s3_server.failures = 0
    assert (error.value.status_code, error.value.code) == (503, "storage_unavailable")
    assert client.files.content(file_id).read()
