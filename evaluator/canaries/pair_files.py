"""Where the pair of canary adapters of a base model lies: one that learnt sensible advice, and one careless advice.

The pair is shipped for the embedded base model. For another one it is a folder with the adapters `good` and `bad`: in
the artifact store by the digest of the folder, as a base model's qualification leaves it there, or on the machine that
evaluates, below `canaries` of the cache folder under the first 16 digits of the weights' digest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from evaluator.models.base_models import locked
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.contract.artifacts import Digest, digest_bytes, digest_file, digest_tree
from policies.contract.store import ArtifactStore
from policies.errors import ArtifactMissingError, EvaluationError, IntegrityError, NotAtHandError

CanarySet = Literal["builtin"] | Digest
"""The shipped pair or that of the cache folder, or a pair of the artifact store."""
FOLDER = "canaries"
"""Below the cache folder."""


class PairFiles(NamedTuple):
    """Two adapter folders on this machine."""

    good: Path
    bad: Path

    @property
    def digest(self) -> Digest:
        """Of settings and weights of both."""
        parts = [digest_file(folder / name) for folder in self for name in (CONFIG_FILE, WEIGHTS_FILE)]
        return digest_bytes("\n".join(parts).encode())


def find_pair(
    which: CanarySet, weights: Digest, cache_dir: Path | None = None, store: ArtifactStore | None = None
) -> PairFiles:
    """The pair for the base model whose `weights_digest` is given.

    Raises:
        EvaluationError: there is none. What it says goes to tenants, so it names no path.
    """
    if which != "builtin":
        return _stored(which, cache_dir, store)
    name = short(weights)
    candidates = [shipped_folder(name)]
    if cache_dir is not None:
        candidates.append(cache_dir / FOLDER / name)
    found = next((pair for folder in candidates if (pair := pair_in(folder)) is not None), None)
    if found is None:
        raise NotAtHandError(
            f"there is no pair of canary adapters for this base model (weights {name}); qualify the base model, or "
            f"train a pair and put its folders good and bad into {FOLDER}/{name} of the evaluator's cache folder"
        )
    return found


def pair_in(folder: Path) -> PairFiles | None:
    """The adapters `good` and `bad` of a folder; None where one of their files is missing."""
    pair = PairFiles(folder / "good", folder / "bad")
    is_whole = all(os.path.isfile(adapter / name) for adapter in pair for name in (CONFIG_FILE, WEIGHTS_FILE))
    return pair if is_whole else None


def shipped_folder(name: str) -> Path:
    """Where the shipped pair of a base model would be, by the short name of its weights."""
    return Path(str(files("evaluator.self_test"))) / "canary_adapters" / name


def short(weights: Digest) -> str:
    """Names the folder of a base model's pair."""
    return weights.removeprefix("sha256:")[:16]


def _stored(digest: Digest, cache_dir: Path | None, store: ArtifactStore | None) -> PairFiles:
    if store is None or cache_dir is None:
        raise NotAtHandError(f"the canary adapters {digest} are in an artifact store, and none is configured here")
    folder = cache_dir / FOLDER / digest.removeprefix("sha256:")
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _fetch(digest, store, folder)
    if digest_tree(folder) != digest:
        raise IntegrityError(f"the copy of the canary adapters {digest} was changed; delete it from the cache folder")
    pair = pair_in(folder)
    if pair is None:
        raise EvaluationError(f"{digest} is no pair of canary adapters: it needs the adapter folders good and bad")
    return pair


def _fetch(digest: Digest, store: ArtifactStore, folder: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:16]}."))
    try:
        store.fetch_tree(digest, unfinished)
        unfinished.rename(folder)
    except ArtifactMissingError as error:
        raise NotAtHandError(
            f"the canary adapters {digest} are not in the artifact store; put the folder there again"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
