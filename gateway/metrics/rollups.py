"""Sums over rows that only grow in number, kept so that a scrape reads what is new and not everything there ever was.

A rollup is the aggregate of the rows up to a mark, by label; a scrape adds the aggregate of the rows after it. The mark
moves in two steps: to where the table ended a while ago. By then every transaction that had taken a number below it has
committed, so no row is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, SQLColumnExpression, func, literal_column, select
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.tables.statistics import Rollup, RollupMark

SETTLED_SECONDS = 120.0
"""No transaction takes so long between taking a row's number and its commit."""

Labels = tuple[str, ...]
Values = tuple[float, ...]
Sums = dict[Labels, Values]


def added(old: Values, new: Values) -> Values:
    return tuple(a + b for a, b in zip(old, new, strict=True))


def replaced(_old: Values, new: Values) -> Values:
    return new


class Series(NamedTuple):
    """Rows of one table, grouped by labels and aggregated."""

    name: str
    """Of its rollup; a series that changes its meaning gets another name."""
    number: SQLColumnExpression[int]
    """The growing primary key of the rows."""
    labels: tuple[SQLColumnExpression[str], ...]
    values: tuple[ColumnElement[Any], ...]  # Any: sums and counts
    conditions: tuple[ColumnElement[bool], ...] = ()
    merged: Callable[[Values, Values], Values] = added

    def between(self, session: Session, after: int, upto: int | None = None) -> Sums:
        """The aggregates of rows with a number in (after, upto]."""
        # as expressions, because an index of the labels would be read whole for the sake of its order
        labels = [func.coalesce(label, literal_column("''")) for label in self.labels]
        rows = select(*labels, *self.values).where(self.number > after, *self.conditions).group_by(*labels)
        if upto is not None:
            rows = rows.where(self.number <= upto)
        n = len(self.labels)
        return {
            tuple(map(str, row[:n])): tuple(float(value or 0) for value in row[n:]) for row in session.execute(rows)
        }


def totals(session: Session, series: Series) -> Sums:
    """The aggregates of all rows, in the order of their labels."""
    mark = session.get(RollupMark, series.name)
    return dict(
        sorted(_merged(series, _stored(session, series), series.between(session, mark.upto if mark else 0)).items())
    )


def roll_up(services: Services, every: Iterable[Series]) -> None:
    """Move the marks of all series on; for a periodic task, which may run anywhere and twice."""
    for series in every:
        with services.database.transaction() as session:
            _roll_up(session, series, services.clock())


def _roll_up(session: Session, series: Series, now: float) -> None:
    mark = session.get(RollupMark, series.name, with_for_update=True)
    if mark is None:
        mark = RollupMark(series=series.name, upto=0, next_upto=0, noted_at=now)
        session.add(mark)
        session.flush()
    elif now < mark.noted_at + SETTLED_SECONDS:
        return
    if mark.next_upto > mark.upto:
        new = series.between(session, mark.upto, mark.next_upto)
        for labels, values in _merged(series, _stored(session, series), new).items():
            session.merge(
                Rollup(series=series.name, labels=list(labels), label_key="\x1f".join(labels), values=list(values))
            )
    mark.upto = mark.next_upto
    mark.next_upto = session.scalar(select(func.max(series.number))) or 0
    mark.noted_at = now


def _stored(session: Session, series: Series) -> Sums:
    rows: Sequence[Rollup] = session.scalars(select(Rollup).where(Rollup.series == series.name)).all()
    return {tuple(row.labels): tuple(row.values) for row in rows}


def _merged(series: Series, old: Sums, new: Sums) -> Sums:
    return old | {
        labels: series.merged(old[labels], values) if labels in old else values for labels, values in new.items()
    }
