"""Jobs under random worlds: two workers, lost and doubled messages, jumping clocks, wishes at every point.

What must hold after every step: a terminal phase is never left; a stale token writes nothing; a name exists exactly
where the gate's release decision about this adapter is on record.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.app import build_services
from gateway.errors import InvalidRequest, LeaseGone
from gateway.fine_tuning import control
from gateway.fine_tuning.create import create_job
from gateway.fine_tuning.schemas import CreateJobRequest
from gateway.jobs.outbox import dispatch
from gateway.jobs.repository import AttemptProof
from gateway.jobs.states import CLAIMABLE, RUNNING, TERMINAL
from gateway.tables.files import File
from gateway.tables.jobs import Job, SecondEvaluation
from gateway.tenants.auth import Principal
from gateway.tenants.keys import create_tenant
from gateway.workers import leases
from gateway.workers.completion import complete
from gateway.workers.reconciler import reconcile
from gateway.workers.worker_events import record_worker_events
from policies.contract.jobs import JobSpec, Phase
from policies.contract.release import Decision, GateDecision
from policies.contract.tasks import CONFIRM_RELEASE, EVALUATE_ADAPTER, TRAIN_ADAPTER, VALIDATE_FILES
from policies.contract.worker_api import Claim, ClaimRequest, Completion, HeartbeatRequest, Outcome, WorkerEvent
from policies.documents.schema import ReleasePolicy
from tests.gateway.checked_bases import check_base_models
from tests.gateway.conftest import ManualClock, chat_jsonl, gateway_settings
from tests.gateway.databases import Databases, PostgresDatabases, SqliteDatabases
from tests.gateway.hand_worker import KEY_HASH, proof_of, validate_here
from tests.gateway.policy_variants import variant_of_baseline
from tests.gateway.records import checkpoint, report_on, store_evaluation, training_record

DRIFTS = {"good": (0.0, 0.01), "bad": (0.5, 0.01), "doubtful": (0.0, 0.5)}
CRASHES = {"good": None, "bad": "a" * 64, "doubtful": "b" * 64}
"""Signature of a crash, by the same word."""
OUTCOMES = [*[Outcome.SUCCEEDED] * 4, *Outcome]
Snapshot = dict[str, object]
Wish = Callable[[Session, Job, float], None]


class JobWorld(RuleBasedStateMachine):
    """One job, two workers, and everything that can go wrong between them and the gateway."""

    def __init__(self, databases: Databases, evaluators: int) -> None:
        super().__init__()
        self.evaluators = evaluators
        self.opened = ExitStack()
        folder = Path(self.opened.enter_context(TemporaryDirectory()))
        self.clock = ManualClock()
        url = self.opened.enter_context(databases.migrated())
        policies = variant_of_baseline(folder, "some", evaluators=evaluators)
        configuration = gateway_settings(folder, database_url=url, policy_dir=policies)
        self.services = build_services(configuration, self.clock)
        self.opened.callback(self.services.database.close)
        check_base_models(self.services)
        self.messages: list[tuple[str, list[object]]] = []
        self.held: dict[int, Claim] = {}
        """What each worker believes to hold."""
        self.over: list[AttemptProof] = []
        """Of attempts that ended or died."""
        self.ended: Snapshot | None = None
        self.job_id = self._submit()
        self.steps = 0
        self.patience = 0

    @initialize(patience=st.sampled_from([80, 8, 4, 2, 0]), done=st.sampled_from([3, 2, 1, 0]))
    def some_history(self, patience: int, done: int) -> None:
        """After `patience` steps the tenant may cancel: a cancelled job has nothing more to tell.

        Of validation, training and the claim of the evaluation, the first `done` went well.
        """
        self.patience = patience
        if done > 0:
            validate_here(self.services, self.job_id)
        if done > 1:
            self._claim(1, TRAIN_ADAPTER)
            claim = self.held.pop(1)
            self._complete(proof_of(claim), self._answer(claim, "good", Outcome.SUCCEEDED))
        if done > 2:
            self._claim(1, EVALUATE_ADAPTER)

    def _submit(self) -> str:
        digest = self.services.stores.shared.put_bytes(chat_jsonl())
        with self.services.database.transaction() as session:
            tenant = create_tenant(session, "acme", policy="some", now=1)
            file = File(
                id="file-1",
                tenant_id=tenant.id,
                filename="rows.jsonl",
                purpose="fine-tune",
                size_bytes=1,
                digest=digest,
                status="processed",
                created_at=1,
            )
            session.add(file)
            session.flush()
            request = CreateJobRequest(model="smollm2-135m-instruct", training_file=file.id, seed=7)
            who = Principal(tenant.id, tenant.name, tenant.policy, "key")
            return create_job(session, self.services, tenant=who, request=request, idempotency_key=None).id

    def teardown(self) -> None:
        self.opened.close()

    def job(self) -> Job:
        with self.services.database.transaction() as session:
            return session.get_one(Job, self.job_id)

    def snapshot(self) -> Snapshot:
        job = self.job()
        return {column.key: getattr(job, column.key) for column in Job.__table__.columns}

    # messages

    def dispatch_outbox(self) -> None:
        with self.services.database.transaction() as session:
            dispatch(session, lambda task, queue, arguments: self.messages.append((task, list(arguments))))

    @rule()
    def lose_the_messages(self) -> None:
        self.dispatch_outbox()
        self.messages.clear()

    @rule(doubled=st.booleans(), worker=st.sampled_from([1, 2]))
    def deliver_a_message(self, doubled: bool, worker: int) -> None:
        self.dispatch_outbox()
        if not self.messages:
            return
        task, _ = self.messages[0] if doubled else self.messages.pop(0)
        if task == VALIDATE_FILES:
            validate_here(self.services, self.job_id)
        elif worker not in self.held:
            self._claim(worker, task)

    def _claim(self, worker: int, task: str) -> None:
        kind = {TRAIN_ADAPTER: "train", EVALUATE_ADAPTER: "evaluate", CONFIRM_RELEASE: "confirm"}[task]
        request = ClaimRequest.model_validate({"kind": kind, "job_id": self.job_id, "worker": f"worker-{worker}"})
        with self.services.database.transaction() as session:
            claim = leases.claim(session, self.services, request, worker_key_hash=KEY_HASH)
        if claim is not None:
            self.held[worker] = claim

    # time

    @rule(seconds=st.sampled_from([-5000.0, -1.0, 1.0, 31.0, 61.0, 5000.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def reconcile_jobs(self) -> None:
        with self.services.database.transaction() as session:
            reconcile(session, self.services, self.clock())

    # wishes

    @precondition(lambda self: self.steps > self.patience)
    @rule()
    def tenant_cancels(self) -> None:
        self._wish(control.cancel)

    @rule(wish=st.sampled_from([control.pause, control.resume]))
    def tenant_pauses_or_resumes(self, wish: Wish) -> None:
        self._wish(wish)

    def _wish(self, wish: Wish) -> None:
        with self.services.database.transaction() as session:
            try:
                wish(session, session.get_one(Job, self.job_id), self.clock())
            except InvalidRequest:
                session.rollback()

    # workers

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def worker_reports(self, data: st.DataObject) -> None:
        claim = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        event = WorkerEvent(type="checkpoint", message="saved", checkpoint=checkpoint(self.services.stores.shared, 2))
        with self.services.database.transaction() as session:
            proof = proof_of(claim)
            leases.heartbeat(session, self.services, proof=proof, request=HeartbeatRequest())
            try:
                record_worker_events(session, proof=proof, events=(event,), now=self.clock())
            except LeaseGone:
                session.rollback()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), quality=st.sampled_from(list(DRIFTS)), outcome=st.sampled_from(OUTCOMES))
    def worker_completes(self, data: st.DataObject, quality: str, outcome: Outcome) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        claim = self.held.pop(worker)
        self.over.append(proof_of(claim))
        before, answer = self.snapshot(), self._answer(claim, quality, outcome)
        self._complete(proof_of(claim), answer)
        self._repeated_crash_ends_the_job(before, answer, claim)

    def _repeated_crash_ends_the_job(self, before: Snapshot, answer: Completion, claim: Claim) -> None:
        """And nothing else ends it with this code."""
        is_running = before["attempt_token"] == claim.attempt_token and before["phase"] in (*CLAIMABLE.values(),)
        is_repeated = answer.crash_signature is not None and before["crash_signature"] == answer.crash_signature
        was_ended = before["error_code"] != self.job().error_code == "repeated_failure"
        assert was_ended == (is_running and is_repeated and answer.outcome is Outcome.CRASHED)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        self.over.append(proof_of(self.held.pop(data.draw(st.sampled_from(sorted(self.held))))))

    @precondition(lambda self: self.over)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def zombie_answers_again(self, data: st.DataObject, outcome: Outcome) -> None:
        """A token of an attempt that is over, or that died holding the lease and now comes back to life."""
        proof = data.draw(st.sampled_from(self.over))
        before = self.snapshot()
        holds = before["attempt_token"] == proof.token and before["lease_until"] is not None
        self._complete(proof, Completion(outcome=outcome))
        assert holds or self.snapshot() == before

    def _complete(self, proof: AttemptProof, completion: Completion) -> None:
        with self.services.database.transaction() as session:
            try:
                complete(session, self.services, proof=proof, completion=completion)
            except LeaseGone:
                session.rollback()

    def _answer(self, claim: Claim, quality: str, outcome: Outcome) -> Completion:
        store, spec = self.services.stores.shared, JobSpec.model_validate(claim.spec)
        if outcome is not Outcome.SUCCEEDED:
            crash = CRASHES[quality] if outcome is Outcome.CRASHED else None
            return Completion(outcome=outcome, error_code="x", error_message="y", crash_signature=crash)
        record = training_record(spec, store)
        if claim.kind == "train":
            return Completion(outcome=outcome, record=store.put_record(record))
        policy = store.get_record(spec.policy, ReleasePolicy)
        drift, half_width = DRIFTS[quality]
        report = report_on(record, policy, drift=drift, half_width=half_width)
        report_digest, decision = store_evaluation(store, report, policy, spec=spec.digest)
        return Completion(outcome=outcome, record=report_digest, decision=decision)

    # what must hold

    @invariant()
    def a_terminal_phase_is_never_left(self) -> None:
        self.steps += 1
        now = self.snapshot()
        if self.ended is not None:
            assert now == self.ended
        elif Phase(str(now["phase"])) in TERMINAL:
            self.ended = now

    @invariant()
    def a_name_stands_on_a_release_decision_about_this_adapter(self) -> None:
        job = self.job()
        assert (job.fine_tuned_model is not None) == (job.phase == Phase.RELEASED)
        if job.fine_tuned_model is not None:
            assert job.decision_digest is not None
            decision = self.services.stores.shared.get_record(job.decision_digest, GateDecision)
            assert decision.decision is Decision.RELEASE
            assert decision.adapter == job.adapter_digest
            assert decision.policy == job.policy_digest
            assert self._second_outcome() == ("agreed" if self.evaluators == 2 else None)

    def _second_outcome(self) -> str | None:
        with self.services.database.transaction() as session:
            return session.scalar(select(SecondEvaluation.outcome).where(SecondEvaluation.job_id == self.job_id))

    @invariant()
    def a_lease_is_held_exactly_by_a_running_job(self) -> None:
        job = self.job()
        assert (job.phase in RUNNING) == (job.lease_until is not None)

    @invariant()
    def a_finished_job_says_why(self) -> None:
        job = self.job()
        assert (job.finished_at is not None) == (Phase(job.phase) in TERMINAL)
        assert (job.error_code is not None) == (job.phase in (Phase.FAILED, Phase.REJECTED))


EXAMPLES = {SqliteDatabases: 40, PostgresDatabases: 10}
"""What is random does not depend on the database, and PostgreSQL takes longer."""


@pytest.mark.parametrize("evaluators", [1, 2])
def test_whatever_happens_a_job_ends_once_and_in_good_order(databases: Databases, evaluators: int) -> None:
    run_state_machine_as_test(
        lambda: JobWorld(databases, evaluators),  # type: ignore[arg-type]  # it is called, whatever it is
        settings=settings(
            max_examples=EXAMPLES[type(databases)],
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            phases=[hypothesis.Phase.generate],  # shrinking a failure takes minutes; its steps are few enough to read
            suppress_health_check=list(HealthCheck),
        ),
    )
