"""What must hold when all is over. Each check gives its offenders, and none when all is well."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluator.gate import decide
from gateway.dependencies import Services
from gateway.jobs.states import TERMINAL, TRANSITIONS
from gateway.tables.files import File
from gateway.tables.jobs import Job, JobEvent, OutboxMessage
from gateway.tables.models import Model
from gateway.tables.statistics import PhaseTransition
from policies.contract.evaluation import EvalReport
from policies.contract.jobs import JobSpec, Phase
from policies.contract.release import AdapterManifest, Decision, GateDecision
from policies.contract.store import ArtifactStore
from policies.contract.training import TrainingRecord
from policies.documents.schema import ReleasePolicy
from policies.errors import TunegateError

TenantEvents = Mapping[str, Sequence[Mapping[str, object]]]
"""Job → its events as its tenant reads them."""
TOLD = {
    Phase.RELEASED: (
        "Files validated",
        "Fine-tuning job started",
        "Training finished",
        "Safety evaluation started",
        "Safety check: release",
        "New fine-tuned model created",
    ),
    Phase.REJECTED: (
        "Files validated",
        "Fine-tuning job started",
        "Training finished",
        "Safety evaluation started",
        "Safety check: reject",
    ),
}
"""Phase at the end → the beginnings of what the job's log must say. "started" may be there more often."""


class Facts(NamedTuple):
    """A job with all its rows."""

    job: Job
    moves: list[tuple[str, str]]
    events: list[JobEvent]
    model: Model | None


def read_facts(session: Session) -> list[Facts]:
    moves, events = dict[str, list[tuple[str, str]]](), dict[str, list[JobEvent]]()
    for move in session.scalars(select(PhaseTransition).order_by(PhaseTransition.id)):
        moves.setdefault(move.job_id, []).append((move.phase_from, move.phase_to))
    for event in session.scalars(select(JobEvent).order_by(JobEvent.sequence)):
        events.setdefault(event.job_id, []).append(event)
    models = {model.job_id: model for model in session.scalars(select(Model))}
    return [
        Facts(job, moves.get(job.id, []), events.get(job.id, []), models.get(job.id))
        for job in session.scalars(select(Job).order_by(Job.created_at, Job.id))
    ]


def not_ended_once(jobs: Sequence[Facts]) -> list[str]:
    """Exactly one transition to an end, and the job stands where it led."""
    found = []
    for job, moves, _, _ in jobs:
        ends = [entered for _, entered in moves if Phase(entered).is_terminal]
        if ends != [job.phase]:
            found.append(f"{job.id} is {job.phase} and moved to {ends or 'no end'}")
    return found


def not_told_once(jobs: Sequence[Facts], told: TenantEvents) -> list[str]:
    """The tenant reads of exactly one end, and of the one that came."""
    found = []
    for facts in jobs:
        ends = [end for event in told.get(facts.job.id, ()) if (end := _end_told_by(event)) is not None]
        if ends != [facts.job.phase]:
            found.append(f"{facts.job.id} is {facts.job.phase}, its tenant reads of {ends or 'no end'}")
    return found


def _end_told_by(event: Mapping[str, object]) -> Phase | None:
    data, message = event["data"], str(event["message"])
    assert isinstance(data, dict)
    if message == "The job has successfully completed":
        return Phase.RELEASED
    if message == "The job was cancelled.":
        return Phase.CANCELLED
    if event["type"] == "moderation_checks":
        return Phase.REJECTED if data["decision"] == "reject" else None
    return Phase.FAILED if event["level"] == "error" and "code" in data else None


def broken_chains(jobs: Sequence[Facts]) -> list[str]:
    """Each transition begins where the last one ended and is allowed, and the log says what has to be said, once."""
    found = []
    for job, moves, events, _ in jobs:
        states = [Phase.VALIDATING.value, *(entered for _, entered in moves)]
        if [left for left, _ in moves] != states[:-1]:
            found.append(f"{job.id} moved {moves}")
        found += [f"{job.id} moved from {a} to {b}" for a, b in moves if Phase(b) not in TRANSITIONS[Phase(a)]]
        for beginning in TOLD.get(Phase(job.phase), ()):
            count = sum(event.message.startswith(beginning) for event in events)
            if count < 1 or (count > 1 and "started" not in beginning):
                found.append(f"{job.id} is {job.phase}, and its log says {beginning!r} {count} times")
    return found


def unverified_releases(jobs: Sequence[Facts], services: Services, shown: set[str]) -> list[str]:
    """A model is there for each released job and for no other, and the gate says so again from what is stored.

    Args:
        shown: the names of models that tenants see.
    """
    found = [f"{name} is shown and was not released" for name in shown - {job.model.id for job in jobs if job.model}]
    for job, _, _, model in jobs:
        if (model is not None) != (job.phase == Phase.RELEASED) or (model and model.id) != job.fine_tuned_model:
            found.append(
                f"{job.id} is {job.phase} and has the model {model and model.id}, named {job.fine_tuned_model}"
            )
        elif model is not None:
            found += [f"{job.id}: {problem}" for problem in _release_problems(job, model, services)]
            found += [] if model.id in shown else [f"{job.id}: its tenant does not see {model.id}"]
    return found


def _release_problems(job: Job, model: Model, services: Services) -> list[str]:
    store = services.stores.of_job(job.id)
    try:
        policy = services.stores.shared.get_record(job.policy_digest, ReleasePolicy)
        report = store.get_record(str(job.report_digest), EvalReport)
        manifest = store.get_record(model.manifest_digest, AdapterManifest)
        spec = JobSpec.model_validate(job.spec)
        decision = decide(policy, report, spec=spec.digest, attempt=spec.attempt)
        for digest in store.tree(model.adapter_digest).files.values():
            _read(store, digest)
    except (TunegateError, OSError) as error:
        return [str(error)]
    agreed = {
        "decision": (decision.digest, job.decision_digest, manifest.decision),
        "adapter": (decision.adapter, model.adapter_digest, manifest.adapter),
        "spec": (spec.digest, job.spec_digest, manifest.spec, report.spec),
    }
    problems = [f"its records name different {what}s" for what, digests in agreed.items() if len(set(digests)) != 1]
    return problems + ([] if decision.decision is Decision.RELEASE else [f"the gate says {decision.decision}"])


def missing_evidence(jobs: Sequence[Facts], services: Services) -> list[str]:
    """Every record that a job names is in the store, with the bytes of its digest."""
    found = []
    for facts in jobs:
        store = services.stores.of_job(facts.job.id)
        for name, read in _evidence(facts.job, store).items():
            try:
                read()
            except (TunegateError, OSError) as error:
                found.append(f"{facts.job.id}: its {name}: {error}")
    return found


def _evidence(job: Job, store: ArtifactStore) -> dict[str, Callable[[], object]]:
    """Of a job that was judged all of them, of another what it came to."""
    wanted: dict[str, Callable[[], object]] = {"spec": lambda: store.get_record(job.spec_digest, JobSpec)}
    records = {
        "training record": (job.training_record_digest, TrainingRecord),
        "report": (job.report_digest, EvalReport),
        "decision": (job.decision_digest, GateDecision),
    }
    for name, (digest, kind) in records.items():
        if digest is not None or job.phase in (Phase.RELEASED, Phase.REJECTED):
            wanted[name] = lambda digest=digest, kind=kind: store.get_record(str(digest), kind)  # type: ignore[misc]  # bound now
    if job.report_digest is not None:
        wanted["samples"] = lambda: _read(store, str(store.get_record(str(job.report_digest), EvalReport).samples))
    return wanted


def _read(store: ArtifactStore, digest: str) -> None:
    with store.open(digest) as stream:
        while stream.read(1 << 20):
            pass


def leaked_leases(jobs: Sequence[Facts]) -> list[str]:
    return [
        f"{job.id} is {job.phase} and leased until {job.lease_until}"
        for job, *_ in jobs
        if job.lease_until is not None or job.phase not in TERMINAL
    ]


def unsent_messages(session: Session) -> list[str]:
    waiting = session.scalars(select(OutboxMessage).where(OutboxMessage.sent.is_(False)))
    return [f"message {message.id} to {message.queue}: {message.arguments}" for message in waiting]


def unreadable_results(jobs: Sequence[Facts], session: Session, services: Services) -> list[str]:
    """The training log that each trained job offers can be read."""
    found = []
    for job, *_ in jobs:
        if job.training_record_digest is None:
            continue
        file = session.get(File, job.result_file or "")
        try:
            _read(services.stores.files, file.digest if file else "no file")
        except (TunegateError, OSError) as error:
            found.append(f"{job.id}: its results file: {error}")
    return found


def doubled(created: Mapping[int, str], jobs: Sequence[Facts]) -> list[str]:
    """As many jobs as customers were told of, each another one."""
    known = [facts.job.id for facts in jobs]
    twice = [job_id for job_id, group in itertools.groupby(sorted(created.values())) if len(list(group)) > 1]
    return [
        *(f"{job_id} was given to two orders" for job_id in twice),
        *(f"{job_id} was created and nobody was told" for job_id in set(known) - set(created.values())),
        *(f"{job_id} was promised and is not there" for job_id in set(created.values()) - set(known)),
    ]
