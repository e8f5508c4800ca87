"""A part, from the socket to the store of its upload."""

from __future__ import annotations

from typing import Any, NamedTuple

from anyio import to_thread
from fastapi import Request

from gateway.errors import InvalidRequest, PayloadTooLarge
from gateway.files.multipart import UploadForm
from gateway.files.upload import file_pieces, open_form, open_writer
from policies.contract.artifacts import Digest
from policies.contract.store import ArtifactStore

MAX_PART_BYTES = 64 << 20
PART = "data"
PART_FORM: dict[str, Any] = {  # Any: a piece of OpenAPI
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [PART],
                    "additionalProperties": False,
                    "properties": {
                        PART: {"type": "string", "format": "binary", "description": "1 byte to 64 MiB of the file."}
                    },
                }
            }
        },
    }
}
"""What the form has, for the description of the API: its body is read by hand."""


class ReceivedPart(NamedTuple):
    """A part whose bytes are in the store."""

    digest: Digest
    size_bytes: int


async def receive_part(request: Request, store: ArtifactStore) -> ReceivedPart:
    """Stream the request's part into `store`. Nothing of it is kept where this raises."""
    message = f"A part has at most {MAX_PART_BYTES} bytes; send the file in smaller ones."
    too_large = PayloadTooLarge(message, PART, "part_too_large")
    form = open_form(request, part=PART, max_bytes=MAX_PART_BYTES, too_large=too_large)
    async with open_writer(store) as writer:
        pieces = file_pieces(request, form, max_bytes=MAX_PART_BYTES, too_large=too_large, check=_check_fields)
        async for piece in pieces:
            await to_thread.run_sync(writer.write, piece)
        form.finish()
        if not writer.size_bytes:
            raise InvalidRequest("The part is empty; a part has at least 1 byte.", PART, "empty_part")
    return ReceivedPart(writer.digest, writer.size_bytes)


def _check_fields(form: UploadForm) -> None:
    for name in form.fields:
        raise InvalidRequest(f"Unknown form field {name!r}.", name, "unknown_field")
