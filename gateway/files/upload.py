"""`POST /v1/files`, from the socket to the store: hashed and counted on the way, never held in memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PureWindowsPath
from typing import Any, NamedTuple

import anyio
from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from gateway.files.multipart import UploadForm
from policies.contract.artifacts import Digest
from policies.contract.store import ArtifactStore, ArtifactWriter

FORM_OVERHEAD_BYTES = 64 * 1024
"""Room for boundaries, headers, fields and what surrounds the form besides the file."""
EXPIRY_SECONDS = range(3600, 2592000 + 1)
EXPIRY_DIGITS = re.compile("[1-9][0-9]{0,8}")
PURPOSE = "fine-tune"
FIELDS = {"purpose", "expires_after[anchor]", "expires_after[seconds]"}
UPLOAD_FORM: dict[str, Any] = {  # Any: a piece of OpenAPI
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "A file named *.jsonl."},
                        "purpose": {"const": PURPOSE},
                        "expires_after[anchor]": {"const": "created_at"},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": EXPIRY_SECONDS[0],
                            "maximum": EXPIRY_SECONDS[-1],
                        },
                    },
                    "dependentRequired": {
                        "expires_after[anchor]": ["expires_after[seconds]"],
                        "expires_after[seconds]": ["expires_after[anchor]"],
                    },
                }
            }
        },
    }
}
"""What the form has, for the description of the API: its body is read by hand."""


class Upload(NamedTuple):
    """A file whose bytes are in the store."""

    filename: str
    digest: Digest
    size_bytes: int
    expires_after_seconds: int | None


async def receive_upload(request: Request, store: ArtifactStore, *, max_file_bytes: int) -> Upload:
    """Stream the request's file into `store`. Nothing of it is kept where this raises."""
    form = _open_form(request, max_file_bytes)
    async with _writer(store) as writer:
        async for chunk in _body(request, max_body_bytes=max_file_bytes + FORM_OVERHEAD_BYTES):
            pieces = form.feed(chunk)
            _check_fields(form)
            if writer.size_bytes + sum(map(len, pieces)) > max_file_bytes:
                raise _too_large(max_file_bytes)
            for piece in pieces:
                await to_thread.run_sync(writer.write, piece)
        filename = _jsonl_name(form.finish())
        _require_purpose(form.fields.get("purpose"))
        expires_after = _expiry(form.fields)
    return Upload(filename, writer.digest, writer.size_bytes, expires_after)


def least_bytes(request: Request) -> int:
    """What the file has at least, by the length that the request announces; 1 where it announces none."""
    declared = request.headers.get("content-length", "")
    return max(1, int(declared) - FORM_OVERHEAD_BYTES) if declared.isdecimal() else 1


def _open_form(request: Request, max_file_bytes: int) -> UploadForm:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Send the file uncompressed, without Content-Encoding.", code="content_encoding")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_file_bytes + FORM_OVERHEAD_BYTES:
        raise _too_large(max_file_bytes)
    return UploadForm(request.headers.get("content-type"))


async def _body(request: Request, *, max_body_bytes: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Its length is bounded too: text before and after the parts belongs to no file."""
    n_bytes = 0
    try:
        async for chunk in request.stream():
            n_bytes += len(chunk)
            if n_bytes > max_body_bytes:
                raise PayloadTooLarge(f"The body is larger than {max_body_bytes} bytes; send the file alone.", "file")
            yield chunk
    except ClientDisconnect as error:
        raise InvalidRequest("The client went away during the upload.", code="upload_interrupted") from error


@asynccontextmanager
async def _writer(store: ArtifactStore) -> AsyncIterator[ArtifactWriter]:
    """`store.writer()` with its blocking ends on a thread, and closed even when the request is cancelled."""
    context = store.writer()
    writer = await to_thread.run_sync(context.__enter__)
    try:
        yield writer
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(context.__exit__, type(error), error, error.__traceback__)
        raise
    await to_thread.run_sync(context.__exit__, None, None, None)


def _check_fields(form: UploadForm) -> None:
    """Refuse what is known to be wrong while the file is still on its way."""
    for name in form.fields.keys() - FIELDS:
        raise InvalidRequest(f"Unknown form field {name!r}.", name, "unknown_field")
    if "purpose" in form.fields:
        _require_purpose(form.fields["purpose"])
    if form.filename is not None:
        _jsonl_name(form.filename)


def _require_purpose(purpose: str | None) -> None:
    if purpose != PURPOSE:
        found = "The form has no purpose" if purpose is None else f"Purpose {purpose!r} is not offered here"
        raise InvalidRequest(f"{found}; send purpose={PURPOSE}.", "purpose", "unsupported_purpose")


def _jsonl_name(filename: str) -> str:
    """The last component of what the client calls the file; it names nothing on our side."""
    name = PureWindowsPath(filename).name
    if not name.lower().endswith(".jsonl") or not name.isprintable() or len(name) > 255:
        raise InvalidRequest("Only .jsonl files can be trained on; name the file *.jsonl.", "file", "unsupported_file")
    return name


def _expiry(fields: dict[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        message = "expires_after[anchor] must be 'created_at'."
        raise InvalidRequest(message, "expires_after.anchor", "invalid_expiry")
    wanted = int(seconds) if seconds is not None and EXPIRY_DIGITS.fullmatch(seconds) else 0
    if wanted not in EXPIRY_SECONDS:
        message = f"expires_after[seconds] must be an integer from {EXPIRY_SECONDS[0]} to {EXPIRY_SECONDS[-1]}."
        raise InvalidRequest(message, "expires_after.seconds", "invalid_expiry")
    return wanted


def _too_large(max_file_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The file is larger than {max_file_bytes} bytes; split it.", "file")
