"""Metrics of jobs and verdicts, from the database when Prometheus asks: sums kept so far and what came since.

So they are the same in every process of the gateway and survive its restarts; scrape one process, not all of them. No
label holds a job or tenant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.orm import Session

from gateway.base_models.evaluations import known_evaluations
from gateway.dependencies import Services
from gateway.jobs.states import CLAIMABLE, RUNNING, TERMINAL, public_status
from gateway.metrics.calibrations import calibration_families
from gateway.metrics.rollups import Series, Sums, Values, replaced, totals
from gateway.tables.jobs import Job, OutboxMessage, SecondEvaluation
from gateway.tables.statistics import DuplicateDelivery, GateResult, PhaseTransition, RuleResultRow, Sweep
from policies.contract.jobs import Phase

UNDER_WAY = tuple(phase for phase in Phase if phase not in TERMINAL)
DURATION_BUCKETS_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)


class JobMetrics(Collector):
    """Everything that the database says about jobs, as Prometheus families."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not query a database that is not migrated yet."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        with self._services.database.reading() as session:
            yield from job_families(session, self._services.clock())
            yield from duration_families(session)
            yield from verdict_families(session)
            yield from delivery_families(session)
            yield from sweep_families(session)
            known = known_evaluations(session, self._services)
        yield self._policies()
        yield from calibration_families(self._services.policies, known)
        yield from self._store()

    def _store(self) -> Iterator[Metric]:
        free = self._services.stores.shared.free_bytes()
        if free is not None:
            yield GaugeMetricFamily("tunegate_store_free_bytes", "Room left in the artifact store.", value=free)

    def _policies(self) -> Metric:
        family = GaugeMetricFamily(
            "tunegate_policy_info", "Release policies in force.", labels=("name", "version", "digest")
        )
        for policy in self._services.policies.release_policies.values():
            family.add_metric((policy.metadata.name, policy.metadata.version, policy.digest), 1)
        return family


def _histogram() -> tuple[ColumnElement[Any], ...]:  # Any: one column a bucket
    """Rows up to each bucket's bound, all rows, and their sum."""
    seconds = PhaseTransition.seconds
    upto = [func.coalesce(func.sum(case((seconds <= bound, 1), else_=0)), 0) for bound in DURATION_BUCKETS_SECONDS]
    return (*upto, func.count(), func.coalesce(func.sum(seconds), 0.0))


_CLAIMS = or_(
    *(and_(PhaseTransition.phase_from == waits, PhaseTransition.phase_to == runs) for waits, runs in CLAIMABLE.items())
)
ENDED = Series(
    "ended",
    PhaseTransition.id,
    (PhaseTransition.phase_to, PhaseTransition.defense),
    (func.count(),),
    (PhaseTransition.phase_to.in_(TERMINAL),),
)
DURATIONS = Series("phase_seconds", PhaseTransition.id, (PhaseTransition.phase_from,), _histogram())
WAITS = Series("queue_seconds", PhaseTransition.id, (), _histogram(), (_CLAIMS,))
DECISIONS = Series(
    "decisions", GateResult.id, (GateResult.decision, GateResult.policy, GateResult.mode), (func.count(),)
)
CONFIRMATIONS = Series(
    "confirmations", SecondEvaluation.id, (SecondEvaluation.outcome, SecondEvaluation.policy), (func.count(),)
)
RULES = Series(
    "rules",
    RuleResultRow.id,
    (RuleResultRow.policy, RuleResultRow.rule, RuleResultRow.mode, RuleResultRow.outcome),
    (func.count(),),
)
NEWEST_SCORES = Series(
    "newest_scores",
    RuleResultRow.id,
    (RuleResultRow.metric, RuleResultRow.base_model),
    (func.max(RuleResultRow.id),),
    (RuleResultRow.adapter_value.is_not(None),),
    replaced,
)
DUPLICATES = Series("duplicates", DuplicateDelivery.id, (DuplicateDelivery.kind,), (func.count(),))
SWEPT = Series("swept", Sweep.id, (), (func.sum(Sweep.n_bytes), func.sum(Sweep.n_artifacts)))
SWEPT_EVENTS = Series("swept_events", Sweep.id, (), (func.sum(Sweep.n_events),))
SERIES = (ENDED, DURATIONS, WAITS, DECISIONS, CONFIRMATIONS, RULES, NEWEST_SCORES, DUPLICATES, SWEPT, SWEPT_EVENTS)
"""All that is rolled up."""


def job_families(session: Session, now: float) -> Iterator[Metric]:
    ended = totals(session, ENDED)
    finished = CounterMetricFamily("tunegate_jobs", "Jobs that ended.", labels=("status", "defense"))
    for (status, defense), count in _by_status(ended).items():
        finished.add_metric((status, defense), count)
    yield finished
    # Not `tunegate_jobs`: OpenMetrics allows no gauge of a counter's name.
    in_phase = GaugeMetricFamily("tunegate_jobs_in_phase", "Jobs by phase.", labels=("phase",))
    oldest = GaugeMetricFamily(
        "tunegate_job_phase_oldest_age_seconds", "How long the oldest job of a phase has been in it.", labels=("phase",)
    )
    held = func.sum(case((Job.lease_until >= now, 1), else_=0))
    grouped = select(Job.phase, func.count(), func.min(Job.phase_since), held).where(Job.phase.in_(UNDER_WAY))
    under_way = {phase: figures for phase, *figures in session.execute(grouped.group_by(Job.phase))}
    for phase in Phase:
        if phase in TERMINAL:  # nothing leaves it
            in_phase.add_metric((phase.value,), sum(n for (ended_as, _), (n,) in ended.items() if ended_as == phase))
            continue
        count, since, _ = under_way.get(phase.value, (0, now, 0))
        in_phase.add_metric((phase.value,), count)
        oldest.add_metric((phase.value,), max(0.0, now - since))
    yield in_phase
    yield oldest
    n_held = sum(under_way[phase][2] for phase in RUNNING if phase in under_way)
    yield GaugeMetricFamily("tunegate_leases", "Jobs held by a worker.", value=n_held)


def duration_families(session: Session) -> Iterator[Metric]:
    durations = HistogramMetricFamily(
        "tunegate_job_phase_duration_seconds", "How long jobs were in a phase that they left.", labels=("phase",)
    )
    for labels, values in totals(session, DURATIONS).items():
        durations.add_metric(labels, *_buckets_and_sum(values))
    yield durations
    wait = HistogramMetricFamily("tunegate_job_queue_wait_seconds", "How long jobs waited for a worker.")
    wait.add_metric((), *_buckets_and_sum(totals(session, WAITS)[()]))
    yield wait


def verdict_families(session: Session) -> Iterator[Metric]:
    decisions = CounterMetricFamily(
        "tunegate_gate_decisions", "Decisions of the gate.", labels=("decision", "policy", "mode")
    )
    for labels, (count,) in totals(session, DECISIONS).items():
        decisions.add_metric(labels, count)
    yield decisions
    second = CounterMetricFamily(
        "tunegate_second_evaluations", "Second evaluations of a release.", labels=("outcome", "policy")
    )
    for labels, (count,) in totals(session, CONFIRMATIONS).items():
        second.add_metric(labels, count)
    yield second
    rules = CounterMetricFamily(
        "tunegate_rule_results", "Results of single rules.", labels=("policy", "rule", "mode", "result")
    )
    for labels, (count,) in totals(session, RULES).items():
        rules.add_metric(labels, count)
    yield rules
    scores = GaugeMetricFamily(
        "tunegate_eval_score", "Last measured value of a metric on an adapter.", labels=("metric", "base_model")
    )
    newest = [int(number) for (number,) in totals(session, NEWEST_SCORES).values()]
    for row in session.scalars(select(RuleResultRow).where(RuleResultRow.id.in_(newest))):
        scores.add_metric((row.metric, row.base_model), row.adapter_value or 0.0)
    yield scores


def sweep_families(session: Session) -> Iterator[Metric]:
    n_bytes, n_artifacts = totals(session, SWEPT)[()]
    yield CounterMetricFamily("tunegate_swept_bytes", "Bytes of artifacts that retention deleted.", value=n_bytes)
    yield CounterMetricFamily("tunegate_swept_artifacts", "Artifacts that retention deleted.", value=n_artifacts)
    (n_events,) = totals(session, SWEPT_EVENTS)[()]
    yield CounterMetricFamily("tunegate_swept_events", "Rows of events that records took the place of.", value=n_events)


def delivery_families(session: Session) -> Iterator[Metric]:
    duplicates = CounterMetricFamily(
        "tunegate_duplicate_deliveries", "Messages about work that was no longer to be had.", labels=("kind",)
    )
    for labels, (count,) in totals(session, DUPLICATES).items():
        duplicates.add_metric(labels, count)
    yield duplicates
    waiting = select(func.count()).where(OutboxMessage.sent.is_(False))
    yield GaugeMetricFamily("tunegate_outbox_pending", "Messages that wait to be sent.", value=session.scalar(waiting))


def _by_status(ended: Sums) -> dict[tuple[str, str], float]:
    """Counts per public status; `rejected` and `failed` are one."""
    sums: dict[tuple[str, str], float] = {}
    for (phase, defense), (count,) in ended.items():
        key = (public_status(phase), defense)
        sums[key] = sums.get(key, 0) + count
    return sums


def _buckets_and_sum(values: Values) -> tuple[list[tuple[str, float]], float]:
    bounds = [*(str(bound) for bound in DURATION_BUCKETS_SECONDS), "+Inf"]
    return list(zip(bounds, values[: len(bounds)], strict=True)), values[len(bounds)]
