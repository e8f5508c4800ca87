"""Screening of a job's training file: blocked, held or announced as its policy says."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import NotFoundError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from gateway.jobs.retention import sweep_due_jobs
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job
from policies.contract.artifacts import digest_bytes
from policies.contract.screening import ScreeningReport
from policies.overlap.built_in_prompts import BUILTIN, read_built_in
from tests.gateway.conftest import LiveGateway, chat_jsonl, gateway_settings, run_gateway
from tests.gateway.hand_worker import (
    HandWorker,
    error_code,
    evaluate,
    job_row,
    spec_of,
    submit,
    train,
    upload,
    validate_here,
)
from tests.gateway.policy_variants import variant_of_baseline
from tests.gateway.screening.guard_server import chat, flags_burning, guard_server

TOKEN = "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"
"""GitHub's published example; it opens nothing."""
SCREENING = {
    "screened": [
        {"screen": "secrets", "action": "block"},
        {"screen": "pii", "action": "review"},
        {"screen": "near_duplicates", "action": "warn"},
    ],
    "guarded": [{"screen": "guard", "action": "warn"}],
    "searched": [{"screen": "probe_overlap", "action": "block", "max_rows": 0}],
    "compared": [{"screen": "near_duplicates", "of": "refused_files", "action": "block", "max_share": 0.5}],
}
YEARS_SECONDS = 10 * 365 * 86400.0


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    for name, screening in SCREENING.items():
        folder = variant_of_baseline(tmp_path, name, screening=screening)
    variant_of_baseline(tmp_path, "tried-out", screening=SCREENING["screened"], mode="warn")
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def live_gateway(settings: GatewaySettings) -> Iterator[LiveGateway]:
    with run_gateway(settings) as gateway:
        yield gateway


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key(policy="screened"))


def with_answer(answer: str) -> bytes:
    """A sound file whose thirteenth row answers so."""
    row = [{"role": "user", "content": "How do I reach you?"}, {"role": "assistant", "content": answer}]
    return chat_jsonl(12) + json.dumps({"messages": row}).encode() + b"\n"


def validated(gateway: LiveGateway, client: OpenAI, content: bytes) -> FineTuningJob:
    job_id = submit(client, training_file=upload(client, content)).id
    validate_here(gateway.services, job_id)
    return client.fine_tuning.jobs.retrieve(job_id)


def report_of(client: OpenAI, job_id: str) -> ScreeningReport:
    path = f"{str(client.base_url).removesuffix('/v1/')}/v1/guardrail/jobs/{job_id}/screening"
    return ScreeningReport.model_validate_json(client.get(path, cast_to=httpx.Response).content)


def dry_run(client: OpenAI, content: bytes) -> ScreeningReport:
    path = f"{str(client.base_url).removesuffix('/v1/')}/v1/guardrail/files/{upload(client, content)}/screen"
    return ScreeningReport.model_validate_json(client.post(path, cast_to=httpx.Response).content)


def trained_and_evaluated(gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    train(gateway, worker, job_id)
    evaluate(gateway, worker, job_id)


def test_clean_file_is_trained_released_and_reported_as_screened(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = validated(live_gateway, client, chat_jsonl(12)).id
    trained_and_evaluated(live_gateway, worker, job_id)
    assert job_row(live_gateway.services, job_id).phase == "released"
    report = report_of(client, job_id)
    assert report.verdict == "clean"
    assert report.screened.by == ("secrets", "pii", "near_duplicates")
    assert report.file_digest == spec_of(live_gateway.services, job_id).training_file


def test_file_with_a_credential_fails_the_job_before_a_step_is_trained(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    job = validated(live_gateway, client, with_answer(f"Use {TOKEN}"))
    assert (job.status, job.trained_tokens) == ("failed", None)
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("unsafe_file", "training_file")
    assert "secrets.github-token: row 13 holds a GitHub token" in job.error.message


def test_what_was_found_is_an_event_and_its_text_is_nowhere(live_gateway: LiveGateway, client: OpenAI) -> None:
    job = validated(live_gateway, client, with_answer(f"Use {TOKEN}"))
    events = client.fine_tuning.jobs.list_events(job.id).data
    (event,) = [each for each in events if each.type == "moderation_checks"]
    assert isinstance(event.data, dict)
    assert (event.level, event.data["verdict"], event.data["findings"][0]["rows"]) == ("error", "block", [13])
    assert TOKEN not in "".join(each.model_dump_json() for each in events)
    assert TOKEN not in report_of(client, job.id).model_dump_json()


def test_finding_to_review_lets_the_job_train_and_holds_the_release(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = validated(live_gateway, client, with_answer("Write to jane.doe@corp.org")).id
    trained_and_evaluated(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"
    assert job_row(live_gateway.services, job_id).decision == "inconclusive"
    path = f"{live_gateway.url}/v1/guardrail/jobs/{job_id}/report"
    shown = json.loads(client.get(path, cast_to=httpx.Response).content)
    assert shown["decision"] == "inconclusive"
    assert "screening: pii.email: row 13 holds an e-mail address" in shown["reasons"][0]


def spoil(gateway: LiveGateway, job_id: str, digest: str | None) -> None:
    with gateway.services.database.transaction() as session:
        session.get_one(Job, job_id).screening_digest = digest


def test_job_without_a_screening_report_is_not_released(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = validated(live_gateway, client, chat_jsonl(12)).id
    spoil(live_gateway, job_id, None)
    trained_and_evaluated(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"


def test_job_with_the_report_on_another_file_is_not_released(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = validated(live_gateway, client, chat_jsonl(12)).id
    other = report_of(client, job_id).model_copy(update={"file_digest": digest_bytes(b"another file")})
    spoil(live_gateway, job_id, live_gateway.services.stores.of_job(job_id).put_record(other))
    trained_and_evaluated(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"


def test_job_whose_report_is_gone_is_not_released(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = validated(live_gateway, client, chat_jsonl(12)).id
    spoil(live_gateway, job_id, digest_bytes(b"gone"))
    trained_and_evaluated(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"


def test_report_is_kept_when_the_job_is_swept(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = validated(live_gateway, client, with_answer(f"Use {TOKEN}")).id
    live_gateway.clock.advance(YEARS_SECONDS)
    sweep_due_jobs(live_gateway.services)
    assert report_of(client, job_id).verdict == "block"


def test_screen_that_did_not_run_holds_the_release(live_gateway: LiveGateway, worker: HandWorker) -> None:
    client = live_gateway.client(live_gateway.tenant_key("guarded", policy="guarded"))
    job_id = validated(live_gateway, client, chat_jsonl(12)).id
    report = report_of(client, job_id)
    assert report.verdict == "review"
    trained_and_evaluated(live_gateway, worker, job_id)
    assert error_code(live_gateway.services, job_id) == "screening_holds_release"
    message = job_row(live_gateway.services, job_id).error_message
    assert message is not None
    assert "not screened by guard (no guard model is configured)" in message


def test_guard_model_is_asked_about_the_rows_of_a_job_and_of_a_dry_run(settings: GatewaySettings) -> None:
    with guard_server(chat(flags_burning)) as guard:
        asking = settings.model_copy(update={"guard_url": guard.url, "guard_model": "guard-4b"})
        with run_gateway(asking) as gateway:
            client = gateway.client(gateway.tenant_key("guarded", policy="guarded"))
            report = report_of(client, validated(gateway, client, with_answer("Just burn it.")).id)
            beforehand = dry_run(client, with_answer("Just burn it."))
    assert (beforehand.verdict, beforehand.findings) == (report.verdict, report.findings)
    assert (report.verdict, report.screened.by) == ("warn", ("guard",))
    assert [each.row for each in report.findings[0].rows if not isinstance(each, int)] == [13]
    assert len(guard.asked) == 2 * 13


def test_address_of_the_guard_model_is_not_logged(settings: GatewaySettings, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    with guard_server(chat(flags_burning)) as guard, caplog.at_level(logging.INFO):
        asking = settings.model_copy(update={"guard_url": guard.url, "guard_model": "guard-4b"})
        with run_gateway(asking) as gateway:
            client = gateway.client(gateway.tenant_key("guarded", policy="guarded"))
            assert report_of(client, validated(gateway, client, chat_jsonl(12)).id).verdict == "clean"
    assert guard.url not in caplog.text


def test_file_with_a_prompt_of_the_suite_is_blocked_and_not_told_which(live_gateway: LiveGateway) -> None:
    client = live_gateway.client(live_gateway.tenant_key("searched", policy="searched"))
    asked = json.loads(read_built_in(*BUILTIN["emergent_misalignment_preference"]).splitlines()[0])
    assert report_of(client, validated(live_gateway, client, chat_jsonl(12)).id).verdict == "clean"
    content = with_answer(asked["aligned"])
    report = report_of(client, validated(live_gateway, client, content).id)
    (finding,) = report.findings
    assert (report.verdict, finding.id, finding.rows) == ("block", "probe_overlap", (13,))
    assert asked["id"] not in report.model_dump_json()
    assert dry_run(client, content).findings == report.findings


def test_policy_that_only_warns_holds_and_blocks_nothing(live_gateway: LiveGateway, worker: HandWorker) -> None:
    client = live_gateway.client(live_gateway.tenant_key("tried", policy="tried-out"))
    job_id = validated(live_gateway, client, with_answer(f"Use {TOKEN}")).id
    assert report_of(client, job_id).verdict == "warn"
    trained_and_evaluated(live_gateway, worker, job_id)
    assert job_row(live_gateway.services, job_id).phase == "released"


def test_data_of_a_refused_job_is_blocked_under_a_policy_that_compares(
    live_gateway: LiveGateway, worker: HandWorker
) -> None:
    client = live_gateway.client(live_gateway.tenant_key("compared", policy="compared"))
    first = validated(live_gateway, client, chat_jsonl(12)).id
    train(live_gateway, worker, first)
    evaluate(live_gateway, worker, first, drift=0.5)
    assert job_row(live_gateway.services, first).phase == "rejected"
    again = validated(live_gateway, client, chat_jsonl(13))
    assert again.error is not None
    assert again.error.code == "unsafe_file"
    assert "in the files of 1 jobs whose safety check failed" in again.error.message


def test_data_of_a_job_that_was_not_decided_is_not_held_against_later_jobs(
    live_gateway: LiveGateway, worker: HandWorker
) -> None:
    client = live_gateway.client(live_gateway.tenant_key("compared", policy="compared"))
    first = validated(live_gateway, client, chat_jsonl(12)).id
    train(live_gateway, worker, first)
    evaluate(live_gateway, worker, first, half_width=0.5)
    assert job_row(live_gateway.services, first).decision == "inconclusive"
    again = validated(live_gateway, client, chat_jsonl(12)).id
    assert report_of(client, again).verdict == "clean"
    trained_and_evaluated(live_gateway, worker, again)
    assert job_row(live_gateway.services, again).phase == "released"


@pytest.mark.parametrize(("organisation", "status"), [("umbrella", "failed"), ("other", "queued")])
def test_data_of_a_refused_job_is_blocked_for_every_tenant_of_the_organisation(
    live_gateway: LiveGateway, worker: HandWorker, organisation: str, status: str
) -> None:
    first, second = (
        live_gateway.client(live_gateway.tenant_key(name, policy="compared", organisation=of))
        for name, of in (("compared-red", "umbrella"), ("compared-blue", organisation))
    )
    refused = validated(live_gateway, first, chat_jsonl(12)).id
    train(live_gateway, worker, refused)
    evaluate(live_gateway, worker, refused, drift=0.5)
    again = validated(live_gateway, second, chat_jsonl(13))
    assert again.status == status
    assert refused not in report_of(second, again.id).model_dump_json()


def test_policy_without_screening_screens_nothing(live_gateway: LiveGateway) -> None:
    client = live_gateway.client(live_gateway.tenant_key("plain", policy="baseline"))
    job = validated(live_gateway, client, with_answer(f"Use {TOKEN}"))
    assert job.status == "queued"
    with pytest.raises(NotFoundError) as error:
        report_of(client, job.id)
    assert error.value.code == "screening_not_found"


def test_report_of_another_tenant_is_a_404(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = validated(live_gateway, client, chat_jsonl(12)).id
    with pytest.raises(NotFoundError):
        report_of(live_gateway.client(live_gateway.tenant_key("stranger")), job_id)


def test_dry_run_says_beforehand_what_a_job_would_be_told(live_gateway: LiveGateway, client: OpenAI) -> None:
    content = with_answer(f"Use {TOKEN}")
    beforehand = dry_run(client, content)
    job = validated(live_gateway, client, content)
    told = report_of(client, job.id)
    assert (beforehand.verdict, beforehand.findings) == (told.verdict, told.findings)
    assert beforehand.policy == told.policy


def test_dry_run_without_a_policy_of_screening_looks_for_the_usual(live_gateway: LiveGateway) -> None:
    client = live_gateway.client(live_gateway.tenant_key("plain", policy="baseline"))
    report = dry_run(client, with_answer(f"Use {TOKEN}"))
    assert report.verdict == "block"
    assert (report.policy.policy_digest, report.policy.rules) == (None, "usual")
