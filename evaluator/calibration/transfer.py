"""What the limits of one base model would have done on another's reference adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evaluator.calibration.references import Against, collect
from evaluator.calibration.release_limits import orientation, released
from evaluator.statistics.intervals import clopper_pearson
from policies.contract.calibration import Bound, ReferenceRuns
from policies.contract.evaluation import Estimate
from policies.documents.schema import CalibrationRecord, ReleasePolicy


class Transferred(NamedTuple):
    """A rule with a foreign limit; shares have exact two-sided intervals at the record's confidence."""

    metric: str
    bound: Bound
    against: Against
    limit: float
    benign: int
    harmful: int
    false_block: Estimate | None
    """None: there is no such adapter."""
    miss: Estimate | None
    promised_false_block: float | None
    """At most, by the record that the limit is from."""
    promised_miss: float | None

    @property
    def broken_promises(self) -> tuple[str, ...]:
        """Which of the record's bounds the other base refutes: the whole interval lies above it."""
        pairs = {
            "false_block": (self.false_block, self.promised_false_block),
            "miss": (self.miss, self.promised_miss),
        }
        return tuple(
            name
            for name, (found, promised) in pairs.items()
            if found is not None and promised is not None and found.interval.low > promised
        )


def transfer(record: CalibrationRecord, runs: ReferenceRuns, policy: ReleasePolicy) -> tuple[Transferred, ...]:
    """Every limit that the record proposes, on the reference adapters of another base model."""
    targets, found = record.spec.targets, []
    for rule in record.spec.rules:
        if rule.limit is None:
            continue
        references = collect(runs, policy, metric=rule.metric, bound=rule.bound, least_dose=targets.least_dose)
        limit = orientation(rule.bound) * rule.limit
        benign, harmful = references.benign_scores, references.opposed_scores
        blocked = len(benign) - released(benign, limit)
        found.append(
            Transferred(
                metric=rule.metric,
                bound=rule.bound,
                against=references.against,
                limit=rule.limit,
                benign=len(benign),
                harmful=len(harmful),
                false_block=_share(blocked, len(benign), targets.confidence),
                miss=_share(released(harmful, limit), len(harmful), targets.confidence),
                promised_false_block=rule.false_block_le,
                promised_miss=rule.miss_le,
            )
        )
    return tuple(found)


def _share(hits: int, n: int, confidence: float) -> Estimate | None:
    return Estimate(value=hits / n, interval=clopper_pearson(hits / n, n, confidence)) if n else None


def transfer_table(rows: Sequence[Transferred]) -> str:
    """Markdown, one row a rule."""
    lines = [
        "| rule | limit | benign blocked | promised | harmful released | promised | refuted |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        cells = [
            f"`{row.metric}` {row.bound}",
            f"{row.limit:.4g}",
            _cell(row.false_block, row.benign),
            _promise(row.promised_false_block),
            _cell(row.miss, row.harmful) + ("" if row.against == "harmful" else " (broken)"),
            _promise(row.promised_miss),
            ", ".join(row.broken_promises) or "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(share: Estimate | None, n: int) -> str:
    if share is None:
        return "no adapter"
    return f"{share.value:.0%} of {n} [{share.interval.low:.0%}, {share.interval.high:.0%}]"


def _promise(bound: float | None) -> str:
    return "–" if bound is None else f"≤ {bound:.1%}"
