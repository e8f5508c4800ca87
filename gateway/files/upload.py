"""Bytes of files, from the socket to the store: hashed and counted on the way, never held in memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import PureWindowsPath
from typing import Any, NamedTuple

import anyio
from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from gateway.files.dataset.first_line import FirstLine
from gateway.files.multipart import UploadForm
from policies.contract.artifacts import Digest
from policies.contract.store import ArtifactStore, ArtifactWriter

FORM_OVERHEAD_BYTES = 64 * 1024
"""Room for boundaries, headers, fields and what surrounds the form besides the file."""
EXPIRY_SECONDS = range(3600, 2592000 + 1)
EXPIRY_DIGITS = re.compile("[1-9][0-9]{0,8}")
PURPOSE = "fine-tune"
UNNAMED = "upload"
"""What a file without a name is called; the openai client calls bytes so."""
MAX_NAME_LENGTH = 255
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
                        "file": {"type": "string", "format": "binary", "description": "JSONL, by name or content."},
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
    message = f"The file is larger than {max_file_bytes} bytes; send it in parts (POST /v1/uploads), or split it."
    too_large = PayloadTooLarge(message, "file")
    form = open_form(request, part="file", max_bytes=max_file_bytes, too_large=too_large)
    first_line: FirstLine | None = None
    async with open_writer(store) as writer:
        pieces = file_pieces(request, form, max_bytes=max_file_bytes, too_large=too_large, check=_check_fields)
        async for piece in pieces:
            first_line = first_line or FirstLine(file_name(form.filename or ""))
            await to_thread.run_sync(_write, writer, first_line, piece)
        filename = file_name(form.finish())
        await to_thread.run_sync((first_line or FirstLine(filename)).end)
        require_purpose(form.fields.get("purpose"))
        expires_after = _expiry(form.fields)
    return Upload(filename, writer.digest, writer.size_bytes, expires_after)


def _write(writer: ArtifactWriter, first_line: FirstLine, piece: bytes) -> None:
    first_line.add(piece)
    writer.write(piece)


async def file_pieces(
    request: Request,
    form: UploadForm,
    *,
    max_bytes: int,
    too_large: PayloadTooLarge,
    check: Callable[[UploadForm], None],
) -> AsyncIterator[bytes]:
    """The bytes of the form's file as they arrive; `check` sees the form after each piece of the body.

    Raises:
        PayloadTooLarge: `too_large` where there are more than `max_bytes`, another one where the form is.
        InvalidRequest: the form is wrong, or the client went away.
    """
    n_bytes = 0
    async for chunk in _body(request, max_body_bytes=max_bytes + FORM_OVERHEAD_BYTES):
        pieces = form.feed(chunk)
        check(form)
        n_bytes += sum(map(len, pieces))
        if n_bytes > max_bytes:
            raise too_large
        for piece in pieces:
            yield piece


def least_bytes(request: Request) -> int:
    """What the file has at least, by the length that the request announces; 1 where it announces none."""
    declared = request.headers.get("content-length", "")
    return max(1, int(declared) - FORM_OVERHEAD_BYTES) if declared.isdecimal() else 1


def open_form(request: Request, *, part: str, max_bytes: int, too_large: PayloadTooLarge) -> UploadForm:
    """For a body that has the file as its `part`; raises `too_large` where its length says so already."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Send the file uncompressed, without Content-Encoding.", code="content_encoding")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes + FORM_OVERHEAD_BYTES:
        raise too_large
    return UploadForm(request.headers.get("content-type"), part=part)


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
async def open_writer(store: ArtifactStore) -> AsyncIterator[ArtifactWriter]:
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
        require_purpose(form.fields["purpose"])
    if form.filename is not None:
        file_name(form.filename)


def require_purpose(purpose: str | None) -> None:
    if purpose != PURPOSE:
        found = "The form has no purpose" if purpose is None else f"Purpose {purpose[:64]!r} is not offered here"
        raise InvalidRequest(f"{found}; send purpose={PURPOSE}.", "purpose", "unsupported_purpose")


def file_name(filename: str, param: str = "file") -> str:
    """The last component of what the client calls the file; it names nothing on our side."""
    name = PureWindowsPath(filename).name or UNNAMED
    if not name.isprintable() or len(name) > MAX_NAME_LENGTH:
        message = f"A file's name has at most {MAX_NAME_LENGTH} characters, all of them printable."
        raise InvalidRequest(message, param, "unsupported_file")
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
