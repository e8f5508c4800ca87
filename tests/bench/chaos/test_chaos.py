"""The study of faults on a handful of jobs: all is well, and each check names whatever is made to offend it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from bench.chaos import checks
from bench.chaos.checks import Facts
from bench.chaos.report import as_document, table
from bench.chaos.study import Outcome, Plan, run, services_on
from gateway.dependencies import Services
from gateway.tables.jobs import Job, JobEvent, OutboxMessage
from gateway.tables.models import Model
from gateway.tables.statistics import PhaseTransition
from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport

KINDS = ("training child killed", "evaluator killed", "Redis killed")
PLAN = Plan(n_jobs=16, n_faults=3, n_real=0, seed=3, minutes=4.0, database="sqlite", kinds=KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def outcome(folder: Path) -> Outcome:
    return run(PLAN, folder)


@pytest.fixture
def services(outcome: Outcome, folder: Path, tmp_path: Path) -> Iterator[Services]:
    """On a copy of what the run left, to be spoilt."""
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    database = f"sqlite:///{tmp_path}/copy/data/tunegate.db"
    with services_on(tmp_path / "copy", database) as opened:
        yield opened


@pytest.fixture
def session(services: Services) -> Iterator[Session]:
    with services.database.transaction() as opened:
        yield opened


@pytest.fixture
def released(session: Session) -> Job:
    job = session.scalar(select(Job).where(Job.phase == "released"))
    assert job is not None
    return job


def facts(session: Session) -> list[Facts]:
    session.flush()
    return checks.read_facts(session)


def models(session: Session) -> set[str]:
    return set(session.scalars(select(Model.id)))


def told(session: Session) -> dict[str, list[dict[str, object]]]:
    """What tenants read: the same events, as the API shows them."""
    found: dict[str, list[dict[str, object]]] = {}
    for event in session.scalars(select(JobEvent)):
        shown: dict[str, object] = {
            "type": event.type,
            "level": event.level,
            "message": event.message,
            "data": event.data or {},
        }
        found.setdefault(event.job_id, []).append(shown)
    return found


def spoil(services: Services, job: Job, digest: Digest | None) -> None:
    """Other bytes under the name of an artifact of the job."""
    assert digest is not None
    name = digest.removeprefix("sha256:")
    path = Path(services.stores.of_job(job.id).url.removeprefix("file://")) / "sha256" / name[:2] / name
    path.write_bytes(path.read_bytes() + b" ")


def test_all_jobs_of_a_small_run_end_once_and_recover(outcome: Outcome) -> None:
    assert {check: found for check, found in outcome.offenders.items() if found} == {}
    assert {hit.kind for hit in outcome.hits} == set(KINDS)
    assert sum(outcome.ends.values()) == PLAN.n_jobs
    assert outcome.ends["released"] > outcome.ends["rejected"] > 0


def test_the_report_counts_a_job_without_a_sign_as_one_that_took_for_ever(outcome: Outcome) -> None:
    """One fault that hit two jobs, one of which never went on: the worst is infinite, and the run does not hold."""
    hit = outcome.hits[0]._replace(signs={"ftjob-1": 1.0}, n_jobs=2)
    document = as_document(outcome._replace(hits=[hit, *outcome.hits[1:]]))
    assert document.by_kind[hit.kind].worst == float("inf")
    assert f"| {hit.kind} | 1 | 2 |" in table(document)
    assert as_document(outcome._replace(hits=outcome.hits[1:])).holds is False


@pytest.mark.parametrize("moves", [0, 2])
def test_a_job_that_ended_never_or_twice_is_named(session: Session, released: Job, moves: int) -> None:
    end = select(PhaseTransition).where(
        PhaseTransition.job_id == released.id, PhaseTransition.phase_to == released.phase
    )
    row = session.scalars(end).one()
    if moves == 0:
        session.delete(row)
    else:
        again = {name: getattr(row, name) for name in ("job_id", "defense", "phase_from", "phase_to", "seconds", "at")}
        session.add(PhaseTransition(**again))
    (offender,) = checks.not_ended_once(facts(session))
    assert released.id in offender


def test_a_tenant_that_was_not_told_of_the_end_or_twice_is_named(session: Session, released: Job) -> None:
    jobs, events = facts(session), told(session)
    assert checks.not_told_once(jobs, events) == []
    last = [event for event in events[released.id] if event["message"] == "The job has successfully completed"]
    for other in ([], last * 2):
        spoilt = [event for event in events[released.id] if event not in last] + other
        (offender,) = checks.not_told_once(jobs, events | {released.id: spoilt})
        assert released.id in offender


def test_a_gap_in_the_log_and_in_the_transitions_is_named(session: Session, released: Job) -> None:
    session.execute(
        delete(JobEvent).where(JobEvent.job_id == released.id, JobEvent.message.startswith("Training finished"))
    )
    (gap,) = checks.broken_chains(facts(session))
    assert "Training finished" in gap
    session.execute(
        delete(PhaseTransition).where(PhaseTransition.job_id == released.id, PhaseTransition.phase_to == "evaluating")
    )
    assert any("moved" in offender for offender in checks.broken_chains(facts(session)))


def test_a_model_that_no_decision_stands_behind_is_named(services: Services, session: Session, released: Job) -> None:
    assert checks.unverified_releases(facts(session), services, models(session)) == []
    rejected = session.scalar(select(Job).where(Job.phase == "rejected"))
    assert rejected is not None
    session.execute(update(Job).where(Job.id == rejected.id).values(fine_tuned_model="ft:x"))
    assert [rejected.id in found for found in checks.unverified_releases(facts(session), services, models(session))]
    session.execute(update(Job).where(Job.id == rejected.id).values(fine_tuned_model=None))
    (shown,) = checks.unverified_releases(facts(session), services, models(session) | {"ft:made-up"})
    assert "ft:made-up" in shown
    session.execute(update(Job).where(Job.id == released.id).values(decision_digest=rejected.decision_digest))
    assert any("decision" in found for found in checks.unverified_releases(facts(session), services, models(session)))


def test_weights_that_are_others_are_named(services: Services, session: Session, released: Job) -> None:
    files = services.stores.of_job(released.id).tree(str(released.adapter_digest)).files
    spoil(services, released, files["adapter_model.safetensors"])
    (offender,) = checks.unverified_releases(facts(session), services, models(session))
    assert released.id in offender


@pytest.mark.parametrize("name", ["spec_digest", "training_record_digest", "report_digest", "decision_digest"])
def test_a_record_that_is_another_is_named(services: Services, session: Session, released: Job, name: str) -> None:
    assert checks.missing_evidence(facts(session), services) == []
    spoil(services, released, getattr(released, name))
    assert released.id in checks.missing_evidence(facts(session), services)[0]


def test_samples_and_results_that_are_gone_are_named(services: Services, session: Session, released: Job) -> None:
    store = services.stores.of_job(released.id)
    assert checks.unreadable_results(facts(session), session, services) == []
    samples = store.get_record(str(released.report_digest), EvalReport).samples
    assert samples is not None
    store.delete(samples)
    assert "samples" in checks.missing_evidence(facts(session), services)[0]
    session.execute(update(Job).where(Job.id == released.id).values(result_file=None))
    assert released.id in checks.unreadable_results(facts(session), session, services)[0]


def test_leases_and_messages_that_are_left_are_named(session: Session, released: Job) -> None:
    assert checks.leaked_leases(facts(session)) == checks.unsent_messages(session) == []
    session.execute(update(Job).where(Job.id == released.id).values(lease_until=1.0))
    session.add(OutboxMessage(task="t", queue="train", arguments=[released.id, 1], created_at=0.0))
    assert released.id in checks.leaked_leases(facts(session))[0]
    assert released.id in checks.unsent_messages(session)[0]


def test_orders_that_share_a_job_or_have_none_are_named(session: Session) -> None:
    jobs = facts(session)
    created = dict(enumerate(each.job.id for each in jobs))
    assert checks.doubled(created, jobs) == []
    assert len(checks.doubled(created | {0: created[1]}, jobs)) == 2
    assert len(checks.doubled(created | {99: "ftjob-made-up"}, jobs)) == 1
