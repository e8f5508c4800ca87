"""The figures of a run, as they are kept and shown."""

from __future__ import annotations

import statistics

from pydantic import BaseModel

from bench.chaos.study import Hit, Outcome
from bench.chaos.system.stack import LEASE_SECONDS, SETTINGS

BAR_SECONDS = 7.0
"""The project's own goal for the median recovery."""


class Recovery(BaseModel):
    """Seconds from the beginning of a fault to the next sign of the jobs that it hit."""

    faults: int
    jobs: int
    median: float
    """Of all jobs that were hit."""
    worst: float
    median_of_first: float
    """Of the first job of each fault."""


class Document(BaseModel):
    """What `bench/results/chaos.json` holds."""

    database: str
    jobs: int
    real_jobs: int
    faults: int
    seed: int
    seconds: float
    disk_can_be_full: bool
    lease_seconds: float
    settings: dict[str, str]
    ends: dict[str, int]
    restarts: dict[str, int]
    recovery: Recovery
    by_kind: dict[str, Recovery]
    bar_seconds: float
    offenders: dict[str, list[str]]
    """Check → what does not hold."""
    holds: bool


def as_document(outcome: Outcome) -> Document:
    plan, hits = outcome.plan, outcome.hits
    recovery = _recovery(hits)
    kinds = sorted({hit.kind for hit in hits})
    offenders = outcome.offenders | {
        "recovery": [f"the median is {recovery.median} s"] if recovery.median > BAR_SECONDS else [],
        "faults that did not strike": [f"{len(hits)} of {plan.n_faults} did"] if len(hits) < plan.n_faults else [],
    }
    return Document(
        database=plan.database,
        jobs=plan.n_jobs,
        real_jobs=plan.n_real,
        faults=len(hits),
        seed=plan.seed,
        seconds=outcome.seconds,
        disk_can_be_full=plan.limited_store,
        lease_seconds=LEASE_SECONDS,
        settings=SETTINGS,
        ends=outcome.ends,
        restarts=outcome.restarts,
        recovery=recovery,
        by_kind={kind: _recovery([hit for hit in hits if hit.kind == kind]) for kind in kinds},
        bar_seconds=BAR_SECONDS,
        offenders=offenders,
        holds=not any(offenders.values()),
    )


def _recovery(hits: list[Hit]) -> Recovery:
    """A job without a sign counts as one that took for ever."""
    seconds = [second for hit in hits for second in hit.signs.values()]
    seconds += [float("inf")] * sum(hit.n_jobs - len(hit.signs) for hit in hits)
    firsts = [min(hit.signs.values(), default=float("inf")) for hit in hits]
    return Recovery(
        faults=len(hits),
        jobs=len(seconds),
        median=_rounded(statistics.median(seconds or [float("inf")])),
        worst=_rounded(max(seconds, default=float("inf"))),
        median_of_first=_rounded(statistics.median(firsts or [float("inf")])),
    )


def _rounded(seconds: float) -> float:
    return round(seconds, 1)


def table(document: Document) -> str:
    """Markdown, one row a kind of fault."""
    head = "| fault | times | jobs hit | median s | worst s | first job, median s |\n|---|---:|---:|---:|---:|---:|"
    rows = [_row(kind, recovery) for kind, recovery in document.by_kind.items()]
    return "\n".join([head, *rows, _row("all", document.recovery)])


def _row(name: str, recovery: Recovery) -> str:
    figures = (recovery.median, recovery.worst, recovery.median_of_first)
    return f"| {name} | {recovery.faults} | {recovery.jobs} | " + " | ".join(f"{f:.1f}" for f in figures) + " |"
