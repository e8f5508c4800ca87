"""Cursor paging: `after` is the id of the last object of the page before."""

from __future__ import annotations

from typing import Any, Generic, Literal, NamedTuple, TypeVar

from sqlalchemy import Select, SQLColumnExpression, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from gateway.errors import InvalidRequest

T = TypeVar("T")
Order = Literal["asc", "desc"]


class Page(NamedTuple, Generic[T]):
    """Some items of a list, and whether there are more."""

    items: list[T]
    has_more: bool


class Cursor(NamedTuple):
    """Which page is wanted."""

    limit: int
    after: str | None = None
    order: Order = "desc"


class Keyset(NamedTuple):
    """The columns that order a list, the last one unique, and the column that `after` names."""

    columns: tuple[InstrumentedAttribute[Any], ...]  # Any: the columns of one key differ in type
    id: SQLColumnExpression[str]
    copies: tuple[InstrumentedAttribute[Any], ...] | None = None
    """The same values in another table, by which the list is ordered where that table has an index for it."""


def unknown_place(cursor: Cursor) -> InvalidRequest:
    return InvalidRequest(f"after: no object {cursor.after!r} in this list; pass the id of the last object.", "after")


def fetch_page(
    session: Session,
    rows: Select[T],
    *,
    keyset: Keyset,
    cursor: Cursor,
    anchors: Select[T] | None = None,
) -> Page[T]:
    """One page of `rows`, a statement without order and limit.

    `anchors` selects what `after` may name where that is more than `rows`, e.g. objects deleted since the page before,
    so that a client may delete while it iterates. Anything else is a 400: never another tenant's place in the list.
    """
    if cursor.after is not None:
        anchor = session.scalar((rows if anchors is None else anchors).where(keyset.id == cursor.after))
        if anchor is None:
            raise unknown_place(cursor)
        key = tuple_(*(keyset.copies or keyset.columns))
        place = tuple_(*(getattr(anchor, column.key) for column in keyset.columns))
        rows = rows.where(key < place if cursor.order == "desc" else key > place)
    ordered = rows.order_by(*(c.desc() if cursor.order == "desc" else c.asc() for c in keyset.copies or keyset.columns))
    found = list(session.scalars(ordered.limit(cursor.limit + 1)))
    return Page(found[: cursor.limit], len(found) > cursor.limit)
