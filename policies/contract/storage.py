"""What differs between kinds of storage: how they are opened, what they raise, what they say of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from policies.errors import IntegrityError

S3_ATTEMPTS = 3
"""Of a request, with growing pauses; s3fs itself repeats those that failed on the way."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def folder_name(id: str) -> str:
    """The id of a job or an upload; raises `IntegrityError` where it could name another folder than its own."""
    if not _ID.fullmatch(id):
        raise IntegrityError(f"{id!r} is no id that a folder is named after")
    return id


def is_s3(url: str) -> bool:
    return url.startswith("s3://")


def outages(url: str) -> tuple[type[Exception], ...]:
    """What is raised where the storage behind `url` does not answer, or refuses; worth another try."""
    if not is_s3(url):
        return (OSError,)
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError)


def written_at(detail: Mapping[str, Any]) -> float:  # Any: what a file system says of a file
    """Unix seconds; every file system has a name of its own for it."""
    written = detail.get("mtime", detail.get("LastModified", detail.get("created")))
    return float(written if isinstance(written, int | float) else written.timestamp())


def storage_options(url: str) -> dict[str, object]:
    """A listing that is remembered would show artifacts that others have deleted, and hide those that they wrote."""
    options: dict[str, object] = {"use_listings_cache": False}
    if is_s3(url):
        retries = {"max_attempts": S3_ATTEMPTS, "mode": "standard"}
        options["config_kwargs"] = {"retries": retries, "connect_timeout": 10, "read_timeout": 60}
    return options
