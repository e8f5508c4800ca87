"""File objects as the API shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from gateway.kit.pagination import Cursor, Order, Page
from gateway.tables.files import File


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: None = None
    """Null: what is wrong with a file is found by a job, or by the endpoint that validates it."""

    @classmethod
    def of(cls, file: File) -> FileObject:
        return cls(
            id=file.id,
            bytes=file.size_bytes,
            created_at=file.created_at,
            expires_at=file.expires_at,
            filename=file.filename,
            purpose=file.purpose,
            status=file.status,
        )


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, page: Page[File]) -> FileList:
        data = [FileObject.of(file) for file in page.items]
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first_id, last_id=last_id, has_more=page.has_more)


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileListQuery(BaseModel):
    """Query of `GET /v1/files`."""

    purpose: str | None = Field(None, max_length=64)
    limit: int = Field(10000, ge=1, le=10000)
    order: Order = "desc"
    after: str | None = Field(None, max_length=64)

    def cursor(self) -> Cursor:
        return Cursor(self.limit, self.after, self.order)
