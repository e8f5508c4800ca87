"""The artifact store on a local folder and in memory: what is named by a digest is exactly that content."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.contract.artifacts import Digest, TreeManifest, digest_bytes, digest_tree
from policies.contract.store import ArtifactStore
from policies.errors import ArtifactMissingError, IntegrityError


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    place = f"file://{tmp_path}/store" if request.param == "file" else f"memory://{tmp_path}"
    return ArtifactStore(place)


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
