"""`/v1/files` through the openai client."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.file_create_params import ExpiresAfter

from gateway.files.service import delete_expired_files
from gateway.settings import GatewaySettings
from gateway.tables.files import File
from policies.contract.artifacts import digest_bytes
from tests.gateway.checked_bases import byte_text

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    return settings.model_copy(update={"max_file_bytes": 100_000})


def upload(client: OpenAI, content: bytes, name: str = "train.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="fine-tune").id


def stored_files(gateway: LiveGateway) -> list[Path]:
    """Uploads in the store, finished or not; policies and what base models read text by are there from the start."""
    root = Path(gateway.services.settings.store_url.removeprefix("file://"))
    others = {policy.digest for policy in gateway.services.policies.release_policies.values()} | {byte_text().digest}
    found = (path for path in root.rglob("*") if path.is_file())
    return [path for path in found if f"sha256:{path.name}" not in others]


def test_uploaded_file_is_described_and_read_back(client: OpenAI, training_bytes: bytes) -> None:
    file = client.files.create(file=("train.jsonl", training_bytes), purpose="fine-tune")
    assert file.id.startswith("file-")
    assert (file.object, file.purpose, file.status) == ("file", "fine-tune", "processed")
    assert (file.bytes, file.filename) == (len(training_bytes), "train.jsonl")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == training_bytes
    assert client.files.wait_for_processing(file.id).id == file.id


def test_file_is_uploaded_from_an_open_path(client: OpenAI, training_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(training_bytes)
    with path.open("rb") as stream:
        file = client.files.create(file=stream, purpose="fine-tune")
    assert file.filename == "mine.jsonl"


def test_async_client_uploads_and_lists(live_gateway: LiveGateway, training_bytes: bytes) -> None:
    key = live_gateway.tenant_key()

    async def run() -> list[str]:
        async with AsyncOpenAI(base_url=f"{live_gateway.url}/v1", api_key=key, max_retries=0) as client:
            created = await client.files.create(file=("a.jsonl", training_bytes), purpose="fine-tune")
            listed = [file.id async for file in client.files.list()]
            assert listed == [created.id]
            return listed

    assert len(asyncio.run(run())) == 1


def test_iterating_pages_through_all_files_newest_first(live_gateway: LiveGateway, client: OpenAI) -> None:
    """Seven files of which two pairs share a second: pages of 2 give each once, in one stable order."""
    ids = []
    for n in range(7):
        ids.append(upload(client, b"%d\n" % n))
        live_gateway.clock.advance(n % 2)
    newest_first = [file.id for file in client.files.list(limit=2)]
    assert sorted(newest_first) == sorted(ids)
    assert newest_first == [file.id for file in client.files.list()]
    assert newest_first[::-1] == [file.id for file in client.files.list(order="asc", limit=3)]


def test_list_page_names_its_first_and_last_object(live_gateway: LiveGateway) -> None:
    key = live_gateway.tenant_key()
    client = live_gateway.client(key)
    first = upload(client, b"1\n")
    live_gateway.clock.advance(1)
    second = upload(client, b"2\n")
    headers = {"authorization": f"Bearer {key}"}
    page = httpx.get(f"{live_gateway.url}/v1/files", params={"limit": 1}, headers=headers).json()
    assert (page["object"], page["has_more"]) == ("list", True)
    assert page["first_id"] == page["last_id"] == second
    rest = httpx.get(f"{live_gateway.url}/v1/files", params={"after": second}, headers=headers).json()
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([first], False)


def test_files_can_be_deleted_while_iterating(client: OpenAI) -> None:
    for n in range(5):
        upload(client, b"%d\n" % n)
    deleted = [client.files.delete(file.id).deleted for file in client.files.list(limit=2)]
    assert deleted == [True] * 5
    assert list(client.files.list()) == []


def test_list_is_filtered_by_purpose(client: OpenAI, training_bytes: bytes) -> None:
    file_id = upload(client, training_bytes)
    assert [file.id for file in client.files.list(purpose="fine-tune")] == [file_id]
    assert list(client.files.list(purpose="assistants")) == []


def test_unknown_cursor_is_a_400(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as error:
        client.files.list(after="file-unknown")
    assert error.value.param == "after"


def test_another_tenants_file_is_a_404_everywhere(live_gateway: LiveGateway, client: OpenAI) -> None:
    file_id = upload(client, b"1\n")
    stranger = live_gateway.client(live_gateway.tenant_key("stranger"))
    calls = (stranger.files.retrieve, stranger.files.content, stranger.files.delete)
    for call in calls:
        with pytest.raises(NotFoundError):
            call(file_id)
    assert list(stranger.files.list()) == []
    with pytest.raises(BadRequestError):
        stranger.files.list(after=file_id)
    assert client.files.retrieve(file_id).id == file_id


def test_deleted_file_is_gone_with_its_bytes(live_gateway: LiveGateway, client: OpenAI, training_bytes: bytes) -> None:
    file_id = upload(client, training_bytes)
    assert client.files.delete(file_id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(NotFoundError):
            call(file_id)
    assert stored_files(live_gateway) == []


def test_bytes_stay_while_another_file_has_the_same(live_gateway: LiveGateway, client: OpenAI) -> None:
    other = live_gateway.client(live_gateway.tenant_key("other"))
    mine, theirs = upload(client, b"same\n"), upload(other, b"same\n")
    client.files.delete(mine)
    assert other.files.content(theirs).read() == b"same\n"
    other.files.delete(theirs)
    assert stored_files(live_gateway) == []


def test_deleting_a_copy_of_a_policy_leaves_the_policy(live_gateway: LiveGateway, client: OpenAI) -> None:
    policy = live_gateway.services.policies.release_policy("baseline")
    client.files.delete(upload(client, policy.canonical()))
    assert live_gateway.services.stores.shared.read_bytes(policy.digest) == policy.canonical()


def test_expired_file_is_gone(live_gateway: LiveGateway, client: OpenAI, training_bytes: bytes) -> None:
    expiry: ExpiresAfter = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("a.jsonl", training_bytes), purpose="fine-tune", expires_after=expiry)
    assert file.expires_at == file.created_at + 3600
    live_gateway.clock.advance(3599)
    assert client.files.retrieve(file.id).id == file.id
    live_gateway.clock.advance(1)
    with pytest.raises(NotFoundError):
        client.files.retrieve(file.id)
    assert list(client.files.list()) == []
    assert delete_expired_files(live_gateway.services) == 1
    assert stored_files(live_gateway) == []


@pytest.mark.parametrize("seconds", [3599, 2592001])
def test_expiry_outside_its_range_is_refused(client: OpenAI, seconds: int) -> None:
    expiry: ExpiresAfter = {"anchor": "created_at", "seconds": seconds}
    with pytest.raises(BadRequestError) as error:
        client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune", expires_after=expiry)
    assert error.value.code == "invalid_expiry"


def test_other_purposes_are_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as error:
        client.files.create(file=("a.jsonl", b"{}"), purpose="assistants")
    assert (error.value.code, error.value.param) == ("unsupported_purpose", "purpose")


@pytest.mark.parametrize("name", ["train.json", "train.jsonl.txt", "train", ".jsonl.bak", "Zeilen 1 (2).ndjson"])
def test_jsonl_is_taken_whatever_its_name(client: OpenAI, training_bytes: bytes, name: str) -> None:
    file = client.files.retrieve(upload(client, training_bytes, name))
    assert (file.filename, file.bytes) == (name, len(training_bytes))


def test_bytes_and_streams_without_a_name_are_called_as_the_client_calls_them(
    client: OpenAI, training_bytes: bytes
) -> None:
    for content in (training_bytes, io.BytesIO(training_bytes)):
        assert client.files.create(file=content, purpose="fine-tune").filename == "upload"


def test_a_part_without_a_filename_is_a_file_too(live_gateway: LiveGateway, training_bytes: bytes) -> None:
    """As `curl -F file=…` and a FormData field of text send it."""
    headers = {"authorization": f"Bearer {live_gateway.tenant_key()}"}
    parts = [("purpose", (None, b"fine-tune")), ("file", (None, training_bytes))]
    answer = httpx.post(f"{live_gateway.url}/v1/files", files=parts, headers=headers)
    assert (answer.status_code, answer.json()["filename"]) == (200, "upload")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("train.json", b'[{"messages": []}]', "line 1 is JSON, but no object"),
        ("train.json", b'{\n  "messages": []\n}\n', "line 1: not JSON"),
        ("train.csv", b"prompt,completion\n1,2\n", "line 1: not JSON"),
        ("train.jsonl.gz", b"\x1f\x8b\x08\x00", "line 1: byte 2 of the line is not UTF-8"),
        ("train.parquet", b"PAR1\x15\x04\x15", "line 1: not JSON"),
        ("train", b"", "line 1: "),
        ("train", b"\n{}\n", "line 1: "),
    ],
)
def test_what_is_jsonl_neither_by_name_nor_by_content_is_refused(
    live_gateway: LiveGateway, client: OpenAI, name: str, content: bytes, why: str
) -> None:
    with pytest.raises(BadRequestError, match=f"'{name}' is not JSONL: {why}.*tunegate files convert") as error:
        upload(client, content, name)
    assert (error.value.code, error.value.param) == ("unsupported_file", "file")
    assert stored_files(live_gateway) == []


@pytest.mark.parametrize("name", ["../../etc/train.jsonl", "C:\\data\\train.jsonl"])
def test_only_the_last_component_of_a_name_is_kept(client: OpenAI, name: str) -> None:
    assert client.files.retrieve(upload(client, b"{}", name)).filename == "train.jsonl"


def test_largest_file_is_taken_and_one_byte_more_is_413(live_gateway: LiveGateway, client: OpenAI) -> None:
    content = b"x" * 100_000
    file_id = upload(client, content)
    assert client.files.retrieve(file_id).bytes == 100_000
    before = stored_files(live_gateway)
    with pytest.raises(APIStatusError) as error:
        upload(client, content + b"x")
    assert (error.value.status_code, error.value.code) == (413, "file_too_large")
    assert stored_files(live_gateway) == before
    with live_gateway.services.database.transaction() as session:
        row = session.get_one(File, file_id)
    assert row.digest == digest_bytes(content)
