"""The artifact store on a local folder and in memory: what is named by a digest is exactly that content."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from policies.contract.artifacts import Digest, TreeManifest, digest_bytes, digest_tree
from policies.contract.storage import outages
from policies.contract.store import MAX_RECORD_BYTES, ArtifactStore, ArtifactStores
from policies.contract.verified_stream import VerifiedStream
from policies.errors import ArtifactMissingError, IntegrityError
from tests.s3_server import S3Server, new_bucket


@pytest.fixture
def s3_url(s3_server: S3Server) -> Iterator[str]:
    with new_bucket(s3_server) as url:
        yield url


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return f"file://{tmp_path}/store" if request.param == "file" else f"memory://{tmp_path}"


@pytest.fixture
def store(url: str) -> ArtifactStore:
    return ArtifactStore(url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "deep").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "deep" / "weights.safetensors").write_bytes(bytes(range(256)) * 5000)
    return folder


def stored_names(store: ArtifactStore) -> list[str]:
    return [str(path) for path in store._fs.find(store._root)]


def overwrite(store: ArtifactStore, digest: Digest, content: bytes) -> None:
    with store._fs.open(store._path(digest), "wb") as stream:
        stream.write(content)


def test_bytes_are_named_by_their_digest(store: ArtifactStore) -> None:
    digest = store.put_bytes(b"hello")
    assert digest == digest_bytes(b"hello")
    assert store.read_bytes(digest) == b"hello"
    assert store.size_bytes(digest) == 5


def test_what_is_missing_has_no_size(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissingError, match="no artifact sha256:"):
        store.size_bytes(digest_bytes(b"nobody"))


def test_a_repeated_write_changes_nothing(store: ArtifactStore) -> None:
    assert store.put_bytes(b"hello") == store.put_bytes(b"hello")
    assert len(stored_names(store)) == 1


def test_a_writer_that_fails_leaves_nothing(store: ArtifactStore) -> None:
    def write_half() -> None:
        with store.writer() as writer:
            writer.write(b"half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert stored_names(store) == []


def test_an_absent_artifact_is_told_apart(store: ArtifactStore) -> None:
    absent = digest_bytes(b"never written")
    assert not store.exists(absent)
    with pytest.raises(ArtifactMissingError, match=absent):
        store.read_bytes(absent)


def test_bytes_that_changed_in_the_store_are_not_read(store: ArtifactStore) -> None:
    digest = store.put_bytes(b"good")
    overwrite(store, digest, b"evil")
    with pytest.raises(IntegrityError, match="does not have the bytes that its name promises"):
        store.read_bytes(digest)


def test_a_wrong_copy_is_removed(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put_bytes(b"good")
    overwrite(store, digest, b"evil")
    with pytest.raises(IntegrityError):
        store.fetch_file(digest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_folder_comes_back_whole(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    digest = store.put_tree(folder)
    copy = store.fetch_tree(digest, tmp_path / "copy")
    assert digest_tree(copy) == digest == digest_tree(folder)


def test_a_manifest_cannot_write_outside_its_folder(store: ArtifactStore, tmp_path: Path) -> None:
    manifest = TreeManifest(files={"../escaped": store.put_bytes(b"x")})
    with pytest.raises(IntegrityError, match="outside its folder"):
        store.fetch_tree(store.put_record(manifest), tmp_path / "copy")
    assert not (tmp_path / "escaped").exists()


def test_a_deleted_artifact_is_gone_and_may_be_deleted_again(store: ArtifactStore) -> None:
    digest = store.put_bytes(b"hello")
    store.delete(digest)
    store.delete(digest)
    assert not store.exists(digest)


def test_stores_are_apart(url: str) -> None:
    """Deleting in one leaves the same bytes of the others; what tenants uploaded earlier lies in the shared one."""
    stores = ArtifactStores(url)
    places = [stores.shared, stores.files, stores.of_job("ftjob-1"), stores.of_job("ftjob-2")]
    digest = digest_bytes(b"the same")
    assert {place.put_bytes(b"the same") for place in places} == {digest}
    stores.files.delete(digest)
    stores.of_job("ftjob-1").delete(digest)
    assert [len(list(place.stored())) for place in places] == [1, 0, 0, 1]
    assert stores.files.read_bytes(digest) == b"the same"
    stores.of_job("ftjob-2").delete(digest)
    stores.shared.delete(digest)
    assert not any(place.exists(digest) for place in places)


@pytest.mark.parametrize("job_id", ["", "..", "../files", "a/b", "a" * 200, "ftjob-\n"])
def test_an_id_names_no_other_folder(tmp_path: Path, job_id: str) -> None:
    stores = ArtifactStores(f"file://{tmp_path}")
    for open_store in (stores.of_job, stores.of_upload):
        with pytest.raises(IntegrityError, match="is no id that a folder"):
            open_store(job_id)


def test_an_ended_upload_leaves_nothing_and_takes_nothing_along(url: str) -> None:
    stores = ArtifactStores(url)
    for place in (stores.files, stores.of_upload("upload_1"), stores.of_upload("upload_2")):
        place.put_bytes(b"the same")
    for _ in range(2):
        stores.of_upload("upload_1").delete_all()
    assert list(stores.of_upload("upload_1").stored()) == []
    for place in (stores.files, stores.of_upload("upload_2")):
        assert place.read_bytes(digest_bytes(b"the same")) == b"the same"


def test_a_listing_tells_size_and_time(store: ArtifactStore) -> None:
    digest = store.put_bytes(b"hello")
    (artifact,) = store.stored()
    assert (artifact.digest, artifact.size_bytes) == (digest, 5)
    assert artifact.written_at > 1.7e9


def test_what_a_dead_writer_left_is_deleted(store: ArtifactStore) -> None:
    kept = store.put_bytes(b"whole")
    with store._fs.open(f"{store._root}/incoming/half", "wb") as stream:
        stream.write(b"half")
    assert store.delete_unfinished(before=1e9) == 0
    assert store.delete_unfinished(before=1e11) == 1
    assert store.read_bytes(kept) == b"whole"


def test_a_folder_that_lost_a_file_is_not_held(store: ArtifactStore, folder: Path) -> None:
    digest = store.put_tree(folder)
    assert store.holds_tree(digest)
    store.delete(store.tree(digest).files["deep/weights.safetensors"])
    assert not store.holds_tree(digest)


def test_the_end_of_wrong_bytes_is_never_given(store: ArtifactStore) -> None:
    """Whoever copies piece by piece has a copy without its end, and an error."""
    content = bytes(3 << 20)
    digest = store.put_bytes(content)
    overwrite(store, digest, content[:-1] + b"x")
    given: list[bytes] = []

    def copy() -> None:
        with store.open(digest) as stream:
            given.extend(iter(partial(stream.read, 1000), b""))

    with pytest.raises(IntegrityError):
        copy()
    assert 0 < sum(map(len, given)) < len(content)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_checked_stream_gives_what_it_is_given(size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    with io.BufferedReader(VerifiedStream(io.BytesIO(content), digest_bytes(content)), 1 << 20) as stream:
        assert stream.read() == content
        assert stream.read(1) == b""


def test_a_record_is_not_read_without_bound(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_RECORD_BYTES >= 64 << 20
    digest = store.put_bytes(bytes(1000))
    monkeypatch.setattr("policies.contract.store.MAX_RECORD_BYTES", 999)
    with pytest.raises(IntegrityError, match="larger than 999 bytes"):
        store.read_bytes(digest)


def test_large_artifacts_travel_in_parts(s3_url: str) -> None:
    store, content = ArtifactStore(s3_url), bytes(range(256)) * (60 << 12)
    digest = store.put_bytes(content)
    assert store.read_bytes(digest) == content


def test_a_busy_object_storage_is_asked_again(s3_server: S3Server, s3_url: str) -> None:
    store, failed = ArtifactStore(s3_url), s3_server.failed
    s3_server.failures = 2
    digest = store.put_bytes(b"hello")
    s3_server.failures = 2
    assert store.read_bytes(digest) == b"hello"
    assert s3_server.failed == failed + 4


def test_an_object_storage_that_goes_on_failing_is_an_error(s3_server: S3Server, s3_url: str) -> None:
    store = ArtifactStore(s3_url)
    digest = store.put_bytes(b"hello")
    s3_server.failures = 1000
    try:
        with pytest.raises(outages(s3_url), match="Service Unavailable"):
            store.read_bytes(digest)
    finally:
        s3_server.failures = 0
    assert store.read_bytes(digest) == b"hello"


def test_a_signed_url_gives_the_artifact_to_anybody(s3_url: str) -> None:
    store = ArtifactStore(s3_url)
    url = store.signed_url(store.put_bytes(b"hello"), seconds=60)
    assert url is not None
    with urllib.request.urlopen(url) as answer:  # a server of this test's own
        assert answer.read() == b"hello"


def test_a_local_store_signs_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    assert store.signed_url(store.put_bytes(b"hello"), seconds=60) is None


def test_an_object_storage_that_is_away_is_an_outage(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there: no error of the system, but one of the client's own."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(outages(s3_url)):
        ArtifactStore(s3_url).exists(digest_bytes(b"hello"))


def test_a_folder_whose_manifest_cannot_be_read_is_not_here(url: str) -> None:
    """A worker names what it likes; what isn't a manifest is no folder, and no reason to stop."""
    store = ArtifactStore(url)
    assert not store.holds_tree(store.put_bytes(b"weights, not a manifest"))


class ChangingFile(type(Path())):  # type: ignore[misc]  # the class of the machine's paths
    """Gives other bytes whenever it is opened."""

    n_opened = 0

    def open(self, *arguments: object, **options: object) -> io.BytesIO:
        type(self).n_opened += 1
        return io.BytesIO(b"content %d" % self.n_opened)


def test_a_file_that_changes_while_it_is_put_leaves_nothing_under_a_name_that_is_not_its_own(s3_url: str) -> None:
    store = ArtifactStore(s3_url)
    with pytest.raises(IntegrityError, match="changed while it was stored"):
        store.put_file(ChangingFile("anything"))
    assert list(store.stored()) == []
