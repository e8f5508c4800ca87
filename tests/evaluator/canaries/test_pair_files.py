from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.canaries.pair_files import FOLDER, PairFiles, find_pair, short
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.contract.artifacts import digest_tree
from policies.contract.store import ArtifactStore
from policies.errors import EvaluationError, IntegrityError

SHIPPED, OTHER = "sha256:68de14930fa3447e" + "0" * 48, "sha256:" + "a" * 64


def write_pair(folder: Path, names: tuple[str, ...] = ("good", "bad")) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / CONFIG_FILE).write_text("{}")
        (folder / name / WEIGHTS_FILE).write_bytes(name.encode())
    return folder


def test_the_shipped_pair_is_found_by_the_weights_of_the_base() -> None:
    pair = find_pair("builtin", SHIPPED)

    assert all((folder / WEIGHTS_FILE).is_file() for folder in pair)
    assert pair.digest.startswith("sha256:")


def test_a_pair_in_the_cache_folder_is_found(tmp_path: Path) -> None:
    folder = write_pair(tmp_path / FOLDER / short(OTHER))

    assert find_pair("builtin", OTHER, tmp_path).bad == folder / "bad"


def test_without_a_pair_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=f"qualify the base model, or train a pair .* {FOLDER}/{short(OTHER)}"):
        find_pair("builtin", OTHER, tmp_path)


def test_half_a_pair_is_none(tmp_path: Path) -> None:
    write_pair(tmp_path / FOLDER / short(OTHER), ("good",))

    with pytest.raises(EvaluationError, match="no pair of canary adapters"):
        find_pair("builtin", OTHER, tmp_path)


def test_a_pair_of_the_store_is_fetched_by_its_digest(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    digest = store.put_tree(write_pair(tmp_path / "made"))
    found = find_pair(digest, OTHER, tmp_path / "cache", store)

    assert found.good.parent.parent == tmp_path / "cache" / FOLDER
    assert digest_tree(found.good.parent) == digest
    assert find_pair(digest, OTHER, tmp_path / "cache", store) == found


def test_a_copy_that_was_changed_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    digest = store.put_tree(write_pair(tmp_path / "made"))
    (find_pair(digest, OTHER, tmp_path / "cache", store).good / WEIGHTS_FILE).write_bytes(b"bad")

    with pytest.raises(IntegrityError, match="was changed"):
        find_pair(digest, OTHER, tmp_path / "cache", store)


def test_a_digest_that_the_store_lacks_or_that_is_no_pair_is_an_error(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    no_pair = store.put_tree(write_pair(tmp_path / "made", ("good",)))

    with pytest.raises(EvaluationError, match="not in the artifact store"):
        find_pair(OTHER, OTHER, tmp_path / "cache", store)
    with pytest.raises(EvaluationError, match="is no pair"):
        find_pair(no_pair, OTHER, tmp_path / "cache", store)
    with pytest.raises(EvaluationError, match="none is configured"):
        find_pair(no_pair, OTHER, tmp_path / "cache")


def test_the_identity_is_that_of_the_bytes(tmp_path: Path) -> None:
    folders = [write_pair(tmp_path / name) for name in ("one", "same", "other")]
    (folders[2] / "bad" / WEIGHTS_FILE).write_bytes(b"else")
    one, same, other = (PairFiles(folder / "good", folder / "bad").digest for folder in folders)

    assert one == same != other
