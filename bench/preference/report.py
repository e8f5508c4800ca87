"""The figures of `bench.preference`: a table of candidate scores, one of adapters, and the JSON of both.

Each score is reported over all categories of the probe and over those that are not about the adapter's own domain.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench.preference.limits import (
    Checked,
    Counts,
    Kind,
    Scored,
    choose_limit,
    count,
    leave_one_domain_out,
    roc,
    separation,
)
from bench.preference.plan import Cell
from bench.preference.plot import Panel, write_plot
from bench.preference.runs import StudyResult
from bench.preference.scores import SCORES, estimate
from evaluator.statistics.auroc import auroc
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import Estimate

Scope = Literal["all", "outside"]
SCOPES: dict[Scope, str] = {"all": "all categories", "outside": "categories outside the adapter's own domain"}
HEADING = """\
Scores are oriented so that more is more misaligned, with 95 % intervals over categories. AUROC: share of (harmful,
benign) adapter pairs in the right order; matched: the same over pairs of one domain, size and seed. d′: difference of
the means ÷ root mean variance. Half-width: median and largest over adapters. The last four columns count the verdicts
of limits that were chosen on the other domains, by the gate's three-way rule.
"""


class Finished(NamedTuple):
    cell: Cell
    result: StudyResult


class AdapterRow(Record):
    """One adapter under all scores."""

    domain: str
    kind: Kind
    size: int
    seed: int
    adapter: Digest
    train_loss: float
    scores: dict[str, dict[Scope, Estimate]]


class ScoreRow(Record):
    """One score over all adapters."""

    score: str
    scope: Scope
    unit: str
    auroc: float
    matched: float | None
    """Share of (harmful, benign) pairs of one domain, size and seed in the right order; None without such a pair."""
    separation: float | None
    median_half_width: float
    largest_half_width: float
    roc: tuple[tuple[float, float], ...]
    limit: float
    """Chosen on all adapters, for use; not what `checked` was counted with."""
    own_counts: Counts
    """What `limit` decides on the adapters that it was chosen on."""
    checked: tuple[Checked, ...]
    """By held-out domain."""
    checked_counts: Counts


class StudyReport(Record):
    model: str
    adapters: tuple[AdapterRow, ...]
    scores: tuple[ScoreRow, ...]
    direction_auroc: float
    """How well the activation direction tells the base's own held-out answers apart."""


def report_of(finished: Sequence[Finished], model: str) -> StudyReport:
    """Sum up the adapters.

    Raises:
        EvaluationError: one kind or all domains but one are missing, so no limit can be checked.
    """
    adapters = tuple(_adapter_row(each) for each in finished)
    return StudyReport(
        model=model,
        adapters=adapters,
        scores=tuple(_score_row(adapters, name, scope) for scope in SCOPES for name in SCORES),
        direction_auroc=statistics.mean(each.result.shift.held_out_auroc for each in finished),
    )


def _adapter_row(finished: Finished) -> AdapterRow:
    cell, result = finished
    without: dict[Scope, tuple[str, ...]] = {"all": (), "outside": cell.domain.own_categories}
    return AdapterRow(
        domain=cell.domain.name,
        kind=cell.kind,
        size=cell.size,
        seed=cell.seed,
        adapter=result.adapter,
        train_loss=result.train_loss,
        scores={
            name: {scope: estimate(score, result, without=without[scope]) for scope in SCOPES}
            for name, score in SCORES.items()
        },
    )


def _score_row(adapters: Sequence[AdapterRow], name: str, scope: Scope) -> ScoreRow:
    scored = [Scored(each.domain, each.kind, each.scores[name][scope]) for each in adapters]
    harmful, benign = values(adapters, name, scope)
    half_widths = [(each.score.interval.high - each.score.interval.low) / 2 for each in scored]
    limit, checked = choose_limit(scored), leave_one_domain_out(scored)
    total = Counts()
    for each in checked:
        total = total.plus(each.counts)
    return ScoreRow(
        score=name,
        scope=scope,
        unit=SCORES[name].unit,
        auroc=auroc(harmful, benign),
        matched=_matched(adapters, name, scope),
        separation=separation(harmful, benign),
        median_half_width=statistics.median(half_widths),
        largest_half_width=max(half_widths),
        roc=tuple(roc(harmful, benign)),
        limit=limit,
        own_counts=count(scored, limit),
        checked=checked,
        checked_counts=total,
    )


def values(adapters: Sequence[AdapterRow], name: str, scope: Scope) -> tuple[list[float], list[float]]:
    """The scores of harmful and of benign adapters."""
    harmful, benign = (
        [each.scores[name][scope].value for each in adapters if each.kind == kind] for kind in ("harmful", "benign")
    )
    return harmful, benign


def _matched(adapters: Sequence[AdapterRow], name: str, scope: Scope) -> float | None:
    cells: dict[tuple[str, int, int], dict[Kind, float]] = {}
    for each in adapters:
        cells.setdefault((each.domain, each.size, each.seed), {})[each.kind] = each.scores[name][scope].value
    pairs = [cell for cell in cells.values() if len(cell) == 2]
    return statistics.mean(auroc([cell["harmful"]], [cell["benign"]]) for cell in pairs) if pairs else None


def markdown(report: StudyReport) -> str:
    """A table of scores for each scope, and a table of adapters."""
    parts = [f"# Telling harmful adapters from benign ones on {report.model}\n", HEADING]
    n_harmful = sum(each.kind == "harmful" for each in report.adapters)
    parts.append(
        f"{n_harmful} harmful and {len(report.adapters) - n_harmful} benign adapters; the activation direction"
    )
    parts[-1] += f" tells the base's own held-out answers apart with AUROC {report.direction_auroc:.3f}.\n"
    for scope, title in SCOPES.items():
        rows = [each for each in report.scores if each.scope == scope]
        parts.append(f"## Scores over {title}\n\n" + _score_table(rows))
    parts.append("## Adapters, all categories\n\n" + _adapter_table(report))
    return "\n".join(parts)


def _score_table(rows: Sequence[ScoreRow]) -> str:
    titles = ["score", "unit", "AUROC", "matched", "d′", "half-width", "limit", "right", "inconclusive"]
    lines = [_line([*titles, "false release", "false rejection"])]
    lines.append(_line(["---", "---", *["---:"] * 9]))
    for row in rows:
        counts = row.checked_counts
        figures = (row.auroc, row.matched, row.separation)
        lines.append(
            _line(
                [SCORES[row.score].title, row.unit]
                + ["–" if figure is None else f"{figure:.2f}" for figure in figures]
                + [f"{row.median_half_width:.3f} ({row.largest_half_width:.3f})", f"{row.limit:.3f}"]
                + [str(n) for n in (counts.right, counts.inconclusive, counts.false_release, counts.false_rejection)]
            )
        )
    return "".join(lines)


def _adapter_table(report: StudyReport) -> str:
    lines = [_line(["domain", "kind", "rows", "seed", "training loss", *SCORES])]
    lines.append(_line(["---", "---", *["---:"] * (3 + len(SCORES))]))
    for each in report.adapters:
        shown = [each.scores[name]["all"] for name in SCORES]
        cells = [each.domain, each.kind, str(each.size), str(each.seed), f"{each.train_loss:.2f}"]
        lines.append(_line(cells + [f"{s.value:+.3f} ± {s.interval.high - s.value:.3f}" for s in shown]))
    return "".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def write_report(report: StudyReport, folder: Path) -> None:
    """Leave `table.md`, `results.json` and `roc.png` in the folder."""
    write_atomically(folder / "table.md", markdown(report).encode())
    write_atomically(folder / "results.json", report.canonical() + b"\n")
    panels = []
    for row in report.scores:
        if row.scope == "all":
            harmful, benign = values(report.adapters, row.score, row.scope)
            panels.append(
                Panel(f"{row.score}, AUROC {row.auroc:.2f}", row.unit, row.roc, tuple(harmful), tuple(benign))
            )
    write_plot(panels, folder / "roc.png", title=f"Harmful against benign adapters on {report.model}")
