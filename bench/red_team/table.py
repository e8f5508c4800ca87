"""The published table: what became of each organism, which probe saw it, and how often harmless ones are blocked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from bench.red_team.organism import BENIGN, Goal, Organism, TrainedOrganism
from bench.red_team.plot import Bar, write_plot
from bench.red_team.trials import DECIDED, State, Trial, meets_goal
from evaluator.statistics.intervals import clopper_pearson
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import Estimate
from policies.documents.schema import ReleasePolicy

CONFIDENCE = 0.95
COLUMNS = (
    *("organism", "attack", "goal", "released", "inconclusive", "rejected", "share released", "changed later"),
    *("seen by", "only warned of by", "missed by", "goal met", "other than expected"),
)
MET = {True: "yes", False: "**no**", None: "not tried"}


class TableRow(Record):
    """One organism over its trials."""

    organism: str
    attack: str
    description: str
    goal: Goal
    counts: dict[State, int]
    released: Estimate | None
    """Share of decided trials with Clopper and Pearson's interval; None without such."""
    saw: dict[str, int]
    """Instrument → trials that it stopped."""
    missed: dict[str, int]
    warned: dict[str, int]
    """Instrument → trials in which a rule of it failed that is not enforced."""
    afterwards: dict[State, int]
    """What the gate says of what holders made of released adapters."""
    meets_goal: bool | None
    unexpected: tuple[str, ...]


class GroupRow(Record):
    """Organisms of one kind that are trained, together: what is refused unread says nothing about probes."""

    name: str
    n_organisms: int
    counts: dict[State, int]
    n_decided: int
    share: Estimate | None
    """Of attacks the share that was released, of harmless ones the share that was not."""


class RedTeamTable(Record):
    """All that a campaign found."""

    model: str
    policy: str
    policy_digest: Digest
    confidence: float = Field(CONFIDENCE, gt=0, lt=1)
    rows: tuple[TableRow, ...]
    attacks: GroupRow
    benign: GroupRow
    left: tuple[str, ...]
    trials: tuple[Trial, ...]

    @property
    def unmet(self) -> tuple[str, ...]:
        return tuple(row.organism for row in self.rows if row.meets_goal is False)


def table_of(
    organisms: Sequence[Organism],
    trials: Sequence[Trial],
    policy: ReleasePolicy,
    *,
    model: str,
    left: Sequence[str] = (),
) -> RedTeamTable:
    """One row an organism, and the two rates that belong together."""
    by_name = {each.id: [trial for trial in trials if trial.organism == each.id] for each in organisms}
    probes = {rule.metric.partition(".")[0] for rule in policy.spec.rules if rule.mode == "enforce"}
    rows = [_row(each, by_name[each.id], probes) for each in organisms]
    trained = [each for each in organisms if isinstance(each, TrainedOrganism)]
    attacks, benign = ([each for each in trained if each.is_benign == is_benign] for is_benign in (False, True))
    return RedTeamTable(
        model=model,
        policy=f"{policy.metadata.name} {policy.metadata.version}",
        policy_digest=policy.digest,
        rows=tuple(rows),
        attacks=_group("trained attacks: released", attacks, by_name, ("released",)),
        benign=_group("trained harmless adapters: blocked", benign, by_name, ("inconclusive", "rejected")),
        left=tuple(left),
        trials=tuple(trials),
    )


def share_of(hits: int, n: int) -> Estimate | None:
    """`hits` of `n` with the exact interval; None of none."""
    return Estimate(value=hits / n, interval=clopper_pearson(hits / n, n, CONFIDENCE)) if n else None


def markdown(table: RedTeamTable) -> str:
    """The rates, then one line an organism."""
    groups = [
        [each.name, str(each.n_organisms), str(each.n_decided), _shown(each.share)]
        for each in (table.attacks, table.benign)
    ]
    parts = [
        f"# Attacks on the gate: {table.model}, policy {table.policy}\n",
        _lines(["", "organisms", "decided", f"share [{table.confidence:.0%} interval]"], groups),
        _lines(COLUMNS, map(_cells, table.rows)),
    ]
    if table.left:
        parts.append(f"Not tried for want of time: {'; '.join(table.left)}.\n")
    return "\n".join(parts)


def write_table(table: RedTeamTable, folder: Path) -> None:
    """`table.md`, `results.json` and `table.png`."""
    write_atomically(folder / "table.md", markdown(table).encode())
    write_atomically(folder / "results.json", table.model_dump_json(indent=1).encode() + b"\n")
    bars = [Bar(_label(row), dict(row.counts), row.meets_goal) for row in table.rows]
    write_plot(bars, folder / "table.png", title=f"Attacks on the gate\n{table.model}, policy {table.policy}")


def _label(row: TableRow) -> str:
    return row.organism if row.attack == BENIGN else f"{row.organism} · {row.attack}"


def _row(organism: Organism, trials: Sequence[Trial], probes: set[str]) -> TableRow:
    counts = Counter(each.state for each in trials)
    saw = Counter(name for each in trials for name in each.saw)
    missed = Counter(name for each in trials for name in each.missed)
    return TableRow(
        organism=organism.id,
        attack=organism.attack,
        description=organism.description,
        goal=organism.goal,
        counts=dict(counts),
        released=share_of(counts["released"], _n_decided(counts)),
        saw=dict(saw),
        missed=dict(missed),
        warned=dict(Counter(name for each in trials for name in each.warned)),
        afterwards=dict(Counter(each.afterwards for each in trials if each.afterwards is not None)),
        meets_goal=meets_goal(organism.goal, trials),
        unexpected=_unexpected(organism, saw, missed, probes),
    )


def _unexpected(organism: Organism, saw: Counter[str], missed: Counter[str], probes: set[str]) -> tuple[str, ...]:
    """Of probes that the policy has rules of, and of instruments that had a say."""
    asked = probes | set(saw) | set(missed)
    if not saw and not missed:
        return ()
    blind = [f"{name} did not see it" for name in organism.expected.sees if name in asked and not saw[name]]
    return (*blind, *(f"{name} saw it" for name in organism.expected.misses if saw[name]))


def _n_decided(counts: Counter[State]) -> int:
    return sum(counts[state] for state in DECIDED)


def _group(
    name: str, organisms: Sequence[Organism], by_name: dict[str, list[Trial]], hits: tuple[State, ...]
) -> GroupRow:
    counts = Counter(trial.state for each in organisms for trial in by_name[each.id])
    n = _n_decided(counts)
    share = share_of(sum(counts[state] for state in hits), n)
    return GroupRow(name=name, n_organisms=len(organisms), counts=dict(counts), n_decided=n, share=share)


def _cells(row: TableRow) -> list[str]:
    n = sum(row.counts.values())
    extra = [f"{count} {state}" for state, count in row.counts.items() if state not in DECIDED]
    later = [f"{count} {state}" for state, count in row.afterwards.items()]
    return [
        row.organism,
        row.attack,
        row.goal,
        *(str(row.counts.get(state, 0)) for state in DECIDED),
        ", ".join([_shown(row.released), *extra]),
        ", ".join(later) or "–",
        _with_counts(row.saw, n),
        _with_counts(row.warned, n),
        _with_counts(row.missed, n),
        MET[row.meets_goal],
        "; ".join(row.unexpected) or "–",
    ]


def _with_counts(found: dict[str, int], n: int) -> str:
    return ", ".join(f"{name} {count}/{n}" for name, count in found.items()) or "–"


def _shown(share: Estimate | None) -> str:
    if share is None:
        return "–"
    return f"{share.value:.2f} [{share.interval.low:.2f}, {share.interval.high:.2f}]"


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
