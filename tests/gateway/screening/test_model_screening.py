"""What a trainer's models found in a job's file: kept, announced, and judged like the rest of its screening."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from gateway.settings import GatewaySettings
from policies.contract.artifacts import digest_bytes
from policies.contract.screening import (
    Instrument,
    ModelScreening,
    NotScreened,
    ScoredRow,
    ScreenFound,
    ScreeningFacts,
    ScreeningReport,
)
from policies.contract.worker_api import Outcome
from tests.gateway.conftest import LiveGateway, gateway_settings, run_gateway
from tests.gateway.hand_worker import HandWorker, error_code, evaluate, job_row, spec_of, submit_queued
from tests.gateway.policy_variants import variant_of_baseline
from tests.gateway.records import BASE_MODEL, training_record

N_ROWS = 12
REVIEWED = [{"screen": "secrets", "action": "block"}, {"screen": "canary_llr", "action": "review", "max_share": 0.2}]
BLOCKED = [{"screen": "toxicity", "action": "block"}]
SECRETS_ONLY = [{"screen": "secrets", "action": "block"}]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    variant_of_baseline(tmp_path, "reviewed", screening=REVIEWED)
    variant_of_baseline(tmp_path, "blocked", screening=BLOCKED)
    folder = variant_of_baseline(tmp_path, "secrets-only", screening=SECRETS_ONLY)
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def live_gateway(settings: GatewaySettings) -> Iterator[LiveGateway]:
    with run_gateway(settings) as gateway:
        yield gateway


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key(policy="reviewed"))


def facts(screen: str = "canary_llr", *, n_found: int = 0, rows: int = N_ROWS) -> ScreeningFacts:
    found = ScreenFound(
        id=screen,
        screen=screen,
        category="careless_advice",
        count=max(1, n_found),
        of=rows,
        rows=tuple(ScoredRow(row=row, score=0.5) for row in range(1, n_found + 1)),
        severity="medium",
        what="careless advice",
        advice="read them",
    )
    return ScreeningFacts(
        rows=rows, by=(screen,), found=(found,) if n_found else (), instruments=(Instrument(name=screen, version="1"),)
    )


def train(
    gateway: LiveGateway, worker: HandWorker, job_id: str, told: ScreeningFacts | None, **changes: object
) -> None:
    """Complete the training with a sound record, and with these facts of its file; `changes` spoil what is said."""
    claim = worker.must_claim(job_id)
    store = gateway.services.stores.of_job(job_id)
    screening = None
    if told is not None:
        fields = {"training_file": claim.spec.training_file, "base_model": BASE_MODEL, "facts": told} | changes
        screening = store.put_record(ModelScreening.model_validate(fields))
    record = training_record(claim.spec, store, screening=screening)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(record))


def report_of(client: OpenAI, job_id: str) -> ScreeningReport:
    path = f"{str(client.base_url).removesuffix('/v1/')}/v1/guardrail/jobs/{job_id}/screening"
    return ScreeningReport.model_validate_json(client.get(path, cast_to=httpx.Response).content)


def test_file_that_models_find_clean_is_released(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> None:
    job_id = submit_queued(live_gateway, client)
    assert report_of(client, job_id).verdict == "review"
    train(live_gateway, worker, job_id, facts())
    evaluate(live_gateway, worker, job_id)
    report = report_of(client, job_id)
    assert (report.verdict, report.screened.by) == ("clean", ("secrets", "canary_llr"))
    assert job_row(live_gateway.services, job_id).phase == "released"


def test_what_models_found_is_announced_and_holds_the_release(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id, facts(n_found=5))
    events = [each for each in client.fine_tuning.jobs.list_events(job_id).data if each.type == "moderation_checks"]
    assert len(events) == 2
    assert isinstance(events[0].data, dict)
    assert events[0].data["findings"][0]["rows"][0] == {"row": 1, "score": 0.5}
    evaluate(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"


def test_trainer_that_says_nothing_of_a_screen_holds_the_release(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id, None)
    evaluate(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"
    message = job_row(live_gateway.services, job_id).error_message
    assert message is not None
    assert "not screened by canary_llr" in message


def test_screen_that_could_not_run_holds_the_release_with_its_reason(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    missing = NotScreened(by="canary_llr", reason="there is no pair of canary adapters")
    train(live_gateway, worker, job_id, ScreeningFacts(rows=N_ROWS, not_screened=(missing,)))
    evaluate(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"
    assert missing in report_of(client, job_id).screened.not_screened


@pytest.mark.parametrize(
    ("told", "changes"),
    [
        (facts(), {"training_file": digest_bytes(b"another file")}),
        (facts(), {"base_model": digest_bytes(b"another base model")}),
        (facts(rows=3), {}),
        (facts("toxicity"), {}),
        (facts("secrets"), {}),
        (facts().model_copy(update={"instruments": ()}), {}),
    ],
    ids=["another file", "another base model", "some of the rows", "not asked for", "not a model's", "no instrument"],
)
def test_what_does_not_answer_the_job_fails_it(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, told: ScreeningFacts, changes: dict[str, object]
) -> None:
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id, told, **changes)
    assert error_code(live_gateway.services, job_id) == "record_mismatch"


def test_record_that_is_not_in_the_store_fails_the_job(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    claim = worker.must_claim(job_id)
    store = live_gateway.services.stores.of_job(job_id)
    record = training_record(claim.spec, store, screening=digest_bytes(b"gone"))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(record))
    assert error_code(live_gateway.services, job_id) == "artifact_missing"


def test_adapter_of_a_blocked_file_is_not_evaluated(live_gateway: LiveGateway, worker: HandWorker) -> None:
    client = live_gateway.client(live_gateway.tenant_key("blocked", policy="blocked"))
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id, facts("toxicity", n_found=2))
    assert error_code(live_gateway.services, job_id) == "unsafe_file"
    assert job_row(live_gateway.services, job_id).error_param == "training_file"


def test_file_that_the_trainer_refused_fails_its_job_with_what_was_found(
    live_gateway: LiveGateway, worker: HandWorker
) -> None:
    client = live_gateway.client(live_gateway.tenant_key("blocked", policy="blocked"))
    job_id = submit_queued(live_gateway, client)
    claim = worker.must_claim(job_id)
    told = ModelScreening(
        training_file=spec_of(live_gateway.services, job_id).training_file,
        base_model=BASE_MODEL,
        facts=facts("toxicity", n_found=2),
    )
    digest = live_gateway.services.stores.of_job(job_id).put_record(told)
    fields = {"error_code": "unsafe_file", "error_message": "toxicity: rows 1, 2", "screening": digest}
    worker.end(claim.attempt_token, Outcome.FAILED, **fields)
    assert error_code(live_gateway.services, job_id) == "unsafe_file"
    assert report_of(client, job_id).verdict == "block"


def test_job_fails_also_where_what_the_trainer_found_is_gone(live_gateway: LiveGateway, worker: HandWorker) -> None:
    client = live_gateway.client(live_gateway.tenant_key("blocked", policy="blocked"))
    job_id = submit_queued(live_gateway, client)
    claim = worker.must_claim(job_id)
    fields = {"error_code": "unsafe_file", "screening": digest_bytes(b"gone")}
    worker.end(claim.attempt_token, Outcome.FAILED, **fields)
    assert error_code(live_gateway.services, job_id) == "unsafe_file"


def test_models_that_the_policy_does_not_ask_for_change_nothing(live_gateway: LiveGateway, worker: HandWorker) -> None:
    client = live_gateway.client(live_gateway.tenant_key("plain", policy="secrets-only"))
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id, facts())
    evaluate(live_gateway, worker, job_id)
    assert report_of(client, job_id).screened.by == ("secrets",)
    assert job_row(live_gateway.services, job_id).phase == "released"
