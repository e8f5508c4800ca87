"""What tests of uploads in parts share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from sqlalchemy import select

from gateway.tables.files import File
from gateway.tables.tenancy import Tenant
from tests.gateway.conftest import LiveGateway, chat_jsonl

CONTENT = chat_jsonl(40)
"""About 4 KB, which tests cut into parts."""


@pytest.fixture
def content() -> bytes:
    return CONTENT


def begin(client: OpenAI, content: bytes = CONTENT, **fields: object) -> str:
    """The id of an upload that is announced as `content`."""
    body = {"bytes": len(content), "filename": "rows.jsonl", "mime_type": "application/jsonl", "purpose": "fine-tune"}
    return client.uploads.create(**{**body, **fields}).id  # type: ignore[arg-type]  # fields as the test names them


def send(client: OpenAI, upload_id: str, content: bytes = CONTENT, *, n_parts: int = 3) -> list[str]:
    """Ids of parts that make the content."""
    size = -(-len(content) // n_parts)
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return [client.uploads.parts.create(upload_id, data=piece).id for piece in pieces]


def complete_by_hand(gateway: LiveGateway, key: str, upload_id: str, part_ids: Sequence[str]) -> httpx.Response:
    """Without a client that might share something with another thread."""
    headers = {"authorization": f"Bearer {key}"}
    url = f"{gateway.url}/v1/uploads/{upload_id}/complete"
    return httpx.post(url, json={"part_ids": list(part_ids)}, headers=headers, timeout=60)


def stored_bytes(gateway: LiveGateway, tenant: str = "acme") -> int:
    """What counts for the tenant."""
    with gateway.services.database.reading() as session:
        return session.scalars(select(Tenant.stored_bytes).where(Tenant.name == tenant)).one()


def files(gateway: LiveGateway) -> list[str]:
    """Ids of all file objects."""
    with gateway.services.database.reading() as session:
        return list(session.scalars(select(File.id)))


def in_store(gateway: LiveGateway, folder: str = "files") -> list[Path]:
    """What lies below the store's folder, half-written artifacts among it."""
    root = Path(gateway.services.settings.store_url.removeprefix("file://")) / folder
    return [path for path in root.rglob("*") if path.is_file()]
