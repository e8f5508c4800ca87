"""A worker played by hand over the internal API, and shortcuts to bring a job to a phase."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack

import httpx
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from pydantic import BaseModel

from gateway.dependencies import Services
from gateway.files.dataset.inspection import InspectionAnswer, InspectionTask, inspect
from gateway.files.dataset.sandbox import GoOn, Source
from gateway.jobs.repository import AttemptProof, lock_job
from gateway.jobs.validation import Inspect, carry_out, take_up
from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec
from policies.contract.probe_overlap import OverlapScan
from policies.contract.tasks import CLAIMS_PATH, COMPLETION_PATH, EVENTS_PATH, HEARTBEAT_PATH, WORKER_KEY_HEADER
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import (
    Claim,
    ClaimRequest,
    Completion,
    EventBatch,
    HeartbeatAnswer,
    HeartbeatRequest,
    Outcome,
    Progress,
    WorkerEvent,
    WorkKind,
)
from policies.documents.schema import ReleasePolicy
from tests.gateway.conftest import WORKER_TOKENS, LiveGateway, chat_jsonl
from tests.gateway.records import report_on, store_evaluation, training_record

BASE_MODEL_NAME = "smollm2-135m-instruct"
KEY_HASH = "0" * 64


class HandWorker:
    """Calls the internal API as trainers and evaluators do, each call with the credential of the attempt's kind."""

    def __init__(self, gateway: LiveGateway, name: str = "worker-1") -> None:
        self._http = httpx.Client(
            base_url=gateway.url, headers={WORKER_KEY_HEADER: secrets.token_hex(32)}, timeout=30, verify=False
        )
        self._kinds: dict[str, WorkKind] = {}
        self.name = name

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, body: BaseModel, kind: WorkKind) -> httpx.Response:
        """A call with the credential of `kind`."""
        headers = {"authorization": f"Bearer {WORKER_TOKENS[kind]}"}
        return self._http.post(path, json=body.model_dump(mode="json"), headers=headers)

    def _post_about(self, token: str, path: str, body: BaseModel) -> httpx.Response:
        return self.post(path.format(attempt_token=token), body, self._kinds.get(token, "train"))

    def claim(self, job_id: str, kind: WorkKind = "train") -> Claim | None:
        request = ClaimRequest(kind=kind, job_id=job_id, worker=self.name)
        response = self.post(CLAIMS_PATH, request, kind).raise_for_status()
        if response.status_code != 200:
            return None
        claim = Claim.model_validate_json(response.content)
        self._kinds[claim.attempt_token] = kind
        return claim

    def speak_as(self, token: str, kind: WorkKind) -> None:
        """Show the credential of `kind` in calls about an attempt that another worker claimed."""
        self._kinds[token] = kind

    def must_claim(self, job_id: str, kind: WorkKind = "train") -> Claim:
        claim = self.claim(job_id, kind)
        assert claim is not None
        return claim

    def heartbeat(self, token: str, progress: Progress | None = None) -> str:
        response = self._post_about(token, HEARTBEAT_PATH, HeartbeatRequest(progress=progress)).raise_for_status()
        return HeartbeatAnswer.model_validate_json(response.content).order.value

    def send_events(self, token: str, *events: WorkerEvent) -> httpx.Response:
        return self._post_about(token, EVENTS_PATH, EventBatch(events=events))

    def complete(self, token: str, completion: Completion) -> httpx.Response:
        return self._post_about(token, COMPLETION_PATH, completion)

    def end(self, token: str, outcome: Outcome, **fields: str | None) -> None:
        self.complete(token, Completion(outcome=outcome, **fields)).raise_for_status()


def proof_of(claim: Claim) -> AttemptProof:
    """Of a claim that was made with `KEY_HASH`, for tests that call what is below the API."""
    return AttemptProof(claim.attempt_token, claim.kind, KEY_HASH)


def upload(client: OpenAI, content: bytes | None = None) -> str:
    return client.files.create(file=("rows.jsonl", content or chat_jsonl()), purpose="fine-tune").id


def submit(client: OpenAI, **fields: object) -> FineTuningJob:
    """A created job, its files not validated yet."""
    body: dict[str, object] = {"model": BASE_MODEL_NAME, "training_file": upload(client), "seed": 7}
    return client.fine_tuning.jobs.create(**{**body, **fields})  # type: ignore[arg-type]  # fields as the test names them


def submit_queued(gateway: LiveGateway, client: OpenAI, **fields: object) -> str:
    """The id of a job that waits for a trainer."""
    job_id = submit(client, **fields).id
    validate_here(gateway.services, job_id)
    return job_id


def validate_here(services: Services, job_id: str) -> None:
    """Validate a job's files in this process, which takes a hundredth of the time that starting one takes."""
    validate_job_files(services, job_id, inspect=inspect_here)


def validate_job_files(services: Services, job_id: str, *, inspect: Inspect) -> None:
    """Take one job up and settle it; does nothing where another does or did it."""
    with services.database.transaction() as session:
        job = lock_job(session, job_id)
        validation = None if job is None else take_up(session, services, job)
    if validation is not None:
        carry_out(services, validation, inspect=inspect)


def inspect_here(task: InspectionTask, sources: Sequence[Source], go_on: GoOn) -> InspectionAnswer:
    with ExitStack() as stack:
        answer = inspect(task, [stack.enter_context(source()) for source in sources])
    assert go_on()
    return answer


def job_row(services: Services, job_id: str) -> Job:
    with services.database.transaction() as session:
        return session.get_one(Job, job_id)


def error_code(services: Services, job_id: str) -> str | None:
    """The code of a job that failed and released nothing."""
    job = job_row(services, job_id)
    assert job.phase == "failed"
    assert job.fine_tuned_model is None
    return job.error_code


def spec_of(services: Services, job_id: str) -> JobSpec:
    return JobSpec.model_validate(job_row(services, job_id).spec)


def policy_under(services: Services, job_id: str) -> ReleasePolicy:
    return services.stores.shared.get_record(job_row(services, job_id).policy_digest, ReleasePolicy)


def train(gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    """Claims and completes the training with a sound record."""
    services = gateway.services
    claim = worker.must_claim(job_id)
    store = services.stores.of_job(job_id)
    record = store.put_record(training_record(claim.spec, store))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record)


def evaluate(  # what a test chooses of a report
    gateway: LiveGateway,
    worker: HandWorker,
    job_id: str,
    *,
    kind: WorkKind = "evaluate",
    drift: float = 0.0,
    half_width: float = 0.01,
    samples: Digest | None = None,
    overlap: OverlapScan | None = None,
) -> tuple[Digest, Digest]:
    """Claims and completes an evaluation, the first or the second, with an honest report of that drift."""
    store = gateway.services.stores.of_job(job_id)
    claim = worker.must_claim(job_id, kind)
    policy = policy_under(gateway.services, job_id)
    assert claim.training_record is not None
    record = store.get_record(claim.training_record, TrainingRecord)
    attempt = claim.spec.attempt
    report = report_on(
        record, policy, drift=drift, half_width=half_width, attempt=attempt, samples=samples, overlap=overlap
    )
    digests = store_evaluation(store, report, policy, spec=claim.spec.digest)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=digests[0], decision=digests[1])
    return digests


def release(gateway: LiveGateway, client: OpenAI, worker: HandWorker, **fields: object) -> str:
    """The name of a model whose job went all the way."""
    job_id = submit_queued(gateway, client, **fields)
    train(gateway, worker, job_id)
    evaluate(gateway, worker, job_id)
    name = job_row(gateway.services, job_id).fine_tuned_model
    assert name is not None
    return name
