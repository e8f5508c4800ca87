"""Places that a command is told to write to or read from, tried before it begins its work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from policies.contract.store import ArtifactStore
from policies.errors import ConfigurationError


def require_file_place(path: Path, option: str) -> None:
    """Refuse a path that no file can be written to; folders above it are created.

    Raises:
        ConfigurationError: saying why.
    """
    if _is_dir(path, option):
        raise ConfigurationError(f"{path} is a folder; name a file", option)
    require_folder_place(path.parent, option)
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigurationError(f"{path} can't be written; check its permissions, or name another file", option)


def require_folder_place(folder: Path, option: str, *, mode: int = 0o777) -> None:
    """Create the folder, for whom `mode` says, and refuse it if nothing can be written into it.

    Raises:
        ConfigurationError: saying why.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"nothing can be written to {folder}: {error.strerror}; name another place", option
        ) from error


def require_place_of_folder(folder: Path, option: str, *, mode: int = 0o777) -> None:
    """Refuse a path that is no folder and that none can be moved to; folders above it are created.

    Raises:
        ConfigurationError: saying why.
    """
    if not _is_dir(folder, option):
        require_folder_place(folder.parent, option, mode=mode)
        if os.path.lexists(folder):
            raise ConfigurationError(f"nothing can be written to {folder}: it is no folder; name another place", option)


def require_readable_file(path: Path, option: str) -> None:
    """Refuse a path that no file can be read from.

    Raises:
        ConfigurationError: saying why.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}; name a file", option) from error


def _is_dir(path: Path, option: str) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # the folder above may not be entered, or the name is too long
        raise ConfigurationError(f"{path} can't be had: {error.strerror}; name another place", option) from error


def named_store(url: str | None, option: str = "store") -> ArtifactStore | None:
    """The artifact store of a URL; None for none.

    Raises:
        ConfigurationError: there can be no store there.
    """
    if url is None:
        return None
    try:
        _require_folder_or_nothing(url)
        return ArtifactStore(url)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigurationError(
            f"{url} is no artifact store: {error}; name a folder or a URL such as s3://bucket", option
        ) from error


def _require_folder_or_nothing(url: str) -> None:
    """Raises `OSError` where a local path leads to, or through, what is no folder."""
    path = Path(url.removeprefix("file://"))
    if "://" in url.removeprefix("file://"):
        return
    try:
        os.scandir(path).close()
    except FileNotFoundError:  # it is created when something is put there
        return
