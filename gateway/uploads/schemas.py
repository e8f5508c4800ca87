"""Uploads in parts as the API shows them, and what it is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.files.schemas import FileObject
from gateway.files.upload import EXPIRY_SECONDS, PURPOSE
from gateway.tables.files import File
from gateway.tables.uploads import Upload, UploadPart
from policies.contract.artifacts import Digest, canonical_json, digest_bytes

MAX_PARTS = 5000
"""Of one upload; so many ids have room in the body of a request."""


class UploadRequest(BaseModel):
    """An unknown field is refused: it would be something that was asked for and not done."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ExpiresAfter(UploadRequest):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=EXPIRY_SECONDS[0], le=EXPIRY_SECONDS[-1], strict=True)


class CreateUploadRequest(UploadRequest):
    bytes: int = Field(ge=1, strict=True)
    """Of the whole file."""
    filename: str = Field(min_length=1, max_length=1024)
    mime_type: str = Field(min_length=1, max_length=255)
    purpose: str = Field(max_length=64, json_schema_extra={"const": PURPOSE})
    expires_after: ExpiresAfter | None = None
    """Of the file, which is created when the upload is completed."""


class CompleteUploadRequest(UploadRequest):
    part_ids: list[Annotated[str, StringConstraints(max_length=64)]] = Field(min_length=1, max_length=MAX_PARTS)
    """In the order in which the parts make the file."""
    md5: str | None = Field(None, pattern="^[0-9a-fA-F]{32}$")
    """Of the whole file, in hexadecimal digits."""

    @property
    def digest(self) -> Digest:
        """Equal for requests that ask for the same."""
        return digest_bytes(canonical_json([self.part_ids, self.md5 and self.md5.lower()]))


class UploadObject(BaseModel):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None
    """Of a completed upload, unless the file was deleted since."""

    @classmethod
    def of(cls, upload: Upload, file: File | None = None) -> UploadObject:
        return cls.model_validate(
            {
                "id": upload.id,
                "bytes": upload.size_bytes,
                "created_at": upload.created_at,
                "expires_at": upload.expires_at,
                "filename": upload.filename,
                "purpose": upload.purpose,
                "status": upload.status,
                "file": file and FileObject.of(file),
            }
        )


class UploadPartObject(BaseModel):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str

    @classmethod
    def of(cls, part: UploadPart) -> UploadPartObject:
        return cls(id=part.id, created_at=part.created_at, upload_id=part.upload_id)
