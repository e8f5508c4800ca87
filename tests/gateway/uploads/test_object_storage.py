"""Uploads in parts to object storage: a real S3 server on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from openai import OpenAI

from gateway.settings import GatewaySettings
from gateway.uploads.sweep import sweep_uploads
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.uploads.conftest import begin, send, stored_bytes
from tests.s3_server import S3Server, new_bucket


@pytest.fixture
def settings(s3_server: S3Server, tmp_path: Path, database_url: str) -> Iterator[GatewaySettings]:
    with new_bucket(s3_server) as url:
        yield gateway_settings(tmp_path, database_url=database_url, store_url=url)


def test_a_file_in_parts_is_put_together_and_its_parts_are_swept(
    live_gateway: LiveGateway, client: OpenAI, content: bytes
) -> None:
    upload_id, cancelled = begin(client), begin(client)
    send(client, cancelled)
    client.uploads.cancel(cancelled)
    md5 = hashlib.md5(content).hexdigest()
    file = client.uploads.complete(upload_id, part_ids=send(client, upload_id), md5=md5).file
    assert file is not None
    assert client.files.content(file.id).read() == content
    assert sweep_uploads(live_gateway.services) == 2
    url = f"{live_gateway.services.stores.files.url}/uploads"
    assert s3fs.S3FileSystem(use_listings_cache=False).find(url) == []
    assert client.files.content(file.id).read() == content
    assert stored_bytes(live_gateway) == len(content)
