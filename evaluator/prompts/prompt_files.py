"""Reads a prompt file of its publishers: from a dataset repository, an installed Python package or the file system.

`hf://owner/name@revision/path` downloads that one file of a dataset repository; a revision is required, because what a
branch holds may change between two evaluations. Whatever the place, the bytes must have the digest in the policy.
"""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

from policies.contract.artifacts import digest_bytes
from policies.contract.probe_record import PromptFile
from policies.errors import EvaluationError, IntegrityError

_HUB_FILE = re.compile(r"(?P<repository>[^/@]+/[^/@]+)@(?P<revision>[^/@]+)/(?P<path>.+)")


def read_prompt_file(file: PromptFile, cache_dir: Path | None = None) -> bytes:
    """The bytes of the file; downloads are kept in `cache_dir`, or where the hub's client keeps them.

    Raises:
        EvaluationError: there is no such file, or it can't be had.
        IntegrityError: the file has other bytes than the policy says.
    """
    scheme, separator, location = file.uri.partition("://")
    if not separator:
        content = _local(Path(file.uri).expanduser())
    elif scheme == "package":
        content = _packaged(location)
    elif scheme == "hf":
        content = _local(_downloaded(location, cache_dir))
    else:
        raise EvaluationError(f"prompt set {file.uri!r}: use hf://, package:// or a local path")
    found = digest_bytes(content)
    if found != file.content:
        raise IntegrityError(f"prompt set {file.uri} has digest {found}, but the policy expects {file.content}")
    return content


def _local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"prompt set {path} can't be read: {error.strerror}") from error


def _packaged(location: str) -> bytes:
    module, _, path = location.partition("/")
    parts = path.split("/")
    if not all(name.isidentifier() for name in module.split(".")) or not path or ".." in parts:
        raise EvaluationError(f"prompt set package://{location}: write package://module/path")
    try:
        return importlib.resources.files(module).joinpath(*parts).read_bytes()
    except (ModuleNotFoundError, OSError) as error:
        raise EvaluationError(f"prompt set package://{location} can't be read: {error}") from error


def _downloaded(location: str, cache_dir: Path | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    named = _HUB_FILE.fullmatch(location)
    if named is None:
        raise EvaluationError(f"prompt set hf://{location}: write hf://owner/name@revision/path, revision included")
    try:
        path = hf_hub_download(
            named["repository"],
            named["path"],
            repo_type="dataset",
            revision=named["revision"],
            cache_dir=cache_dir / "hub" if cache_dir else None,
        )
    except (HfHubHTTPError, EntryNotFoundError, OSError, ValueError) as error:
        raise EvaluationError(f"prompt set hf://{location} can't be downloaded: {error}") from error
    return Path(path)
