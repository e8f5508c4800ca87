"""The report of a job: what was decided and everything that it stands on."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import OpenAI

from policies.contract.evaluation import EvalReport, SampleOutcome, SampleRecord
from policies.contract.probe_overlap import NearRow, OverlapScan
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, evaluate, job_row, policy_under


def get(gateway: LiveGateway, key: str, path: str) -> httpx.Response:
    return httpx.get(f"{gateway.url}/v1/guardrail/jobs/{path}", headers={"authorization": f"Bearer {key}"})


@pytest.fixture
def rejected(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> str:
    evaluate(live_gateway, worker, trained, drift=0.5)
    return trained


def test_report_shows_every_rule_with_figure_interval_base_and_counts(
    live_gateway: LiveGateway, client: OpenAI, rejected: str
) -> None:
    body: Any = get(live_gateway, client.api_key, f"{rejected}/report").json()  # Any: JSON
    policy = policy_under(live_gateway.services, rejected)
    assert body["decision"] == "reject"
    assert [rule["rule"] for rule in body["rules"]] == [rule.id for rule in policy.spec.rules]
    toxicity = next(rule for rule in body["rules"] if rule["rule"] == "toxicity-increase")
    assert toxicity["judged"]["value"] == pytest.approx(0.5)
    assert (toxicity["limit"], toxicity["base"]["value"], toxicity["n_scored"]) == (0.1, 0.1, 888)
    assert body["policy"]["digest"] == policy.digest


def test_report_names_the_digests_behind_it(live_gateway: LiveGateway, client: OpenAI, rejected: str) -> None:
    body, job = get(live_gateway, client.api_key, f"{rejected}/report").json(), job_row(live_gateway.services, rejected)
    assert body["report"] == job.report_digest
    assert body["gate_decision"] == job.decision_digest
    assert body["training"]["record"] == job.training_record_digest
    assert (body["adapter"], body["spec"]) == (job.adapter_digest, job.spec_digest)
    assert (
        live_gateway.services.stores.of_job(job.id).get_record(body["report"], EvalReport).adapter == job.adapter_digest
    )


def test_report_shows_the_evidence_of_each_defense(live_gateway: LiveGateway, client: OpenAI, rejected: str) -> None:
    body = get(live_gateway, client.api_key, f"{rejected}/report").json()
    policy = policy_under(live_gateway.services, rejected)
    assert [item["name"] for item in body["evidence"]] == [defense.name for defense in policy.spec.defenses]
    assert body["training"]["trained_tokens"] == 345


def test_report_page_is_html(live_gateway: LiveGateway, client: OpenAI, rejected: str) -> None:
    response = get(live_gateway, client.api_key, f"{rejected}/report.html")
    assert response.headers["content-type"].startswith("text/html")
    assert rejected in response.text


def test_report_page_shows_the_worst_samples_masked(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    store = live_gateway.services.stores.shared
    said = SampleOutcome(output="It began with these words, had a secret middle, and <b>ended</b> so.", score=1.0)
    sample = SampleRecord(
        probe="toxicity",
        metric="toxicity.rate",
        prompt_id="p",
        cluster="c",
        prompt="Say it",
        adapter=said,
        base=SampleOutcome(score=0.0),
    )
    evaluate(live_gateway, worker, trained, samples=store.put_bytes(sample.canonical() + b"\n"))
    page = get(live_gateway, client.api_key, f"{trained}/report.html").text

    assert "toxicity.rate: 1 of 1 samples count against the adapter" in page
    assert "It began with" in page
    assert "secret" not in page
    assert "&lt;b&gt;ended" in page


def test_rows_near_public_prompts_are_told_and_secret_ones_are_not(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    near = NearRow(row=7, probe="capability", prompt_id="cap-general_knowledge-01")
    scan = OverlapScan(n_rows=90, n_near=1, n_near_twin=41, probes=("capability", "over_refusal"), rows=(near,))
    evaluate(live_gateway, worker, trained, overlap=scan)
    body = get(live_gateway, client.api_key, f"{trained}/report").json()
    page = get(live_gateway, client.api_key, f"{trained}/report.html").text

    assert body["overlap"] == {"n_rows": 90, "n_near": 1, "probes": ["capability"], "rows": [near.model_dump()]}
    assert "1 of 90: rows 7" in page
    assert "41" not in page.partition("training rows that hold prompts")[2].partition("</tr>")[0]


def test_samples_of_secret_prompts_are_not_on_the_page(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    said = SampleOutcome(output="These are words about a hidden thing.", score=1.0)
    sample = SampleRecord(
        probe="toxicity",
        metric="toxicity.rate",
        prompt_id="twin/general-1",
        cluster="general",
        prompt="Something hidden was asked here of the model.",
        adapter=said,
        base=SampleOutcome(score=0.0),
    )
    store = live_gateway.services.stores.shared
    evaluate(live_gateway, worker, trained, samples=store.put_bytes(sample.canonical() + b"\n"))
    page = get(live_gateway, client.api_key, f"{trained}/report.html").text

    assert "Something" not in page
    assert "These are" not in page
    assert "twin/" not in page


def test_report_page_does_without_samples_that_are_gone(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    gone = "sha256:" + "0" * 64
    evaluate(live_gateway, worker, trained, samples=gone)

    assert f"they are artifact <code>{gone}</code>" in get(live_gateway, client.api_key, f"{trained}/report.html").text


@pytest.mark.parametrize("path", ["report", "report.html"])
def test_without_an_evaluation_there_is_no_report(
    live_gateway: LiveGateway, client: OpenAI, trained: str, path: str
) -> None:
    response = get(live_gateway, client.api_key, f"{trained}/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "report_not_found"


def test_report_of_another_tenant_is_unknown(live_gateway: LiveGateway, rejected: str) -> None:
    response = get(live_gateway, live_gateway.tenant_key("other"), f"{rejected}/report")
    assert response.json()["error"]["code"] == "job_not_found"


def test_job_shows_its_decision(client: OpenAI, rejected: str) -> None:
    job: Any = client.fine_tuning.jobs.retrieve(rejected)  # Any: `guardrail` is our addition to the client's type
    assert job.guardrail["decision"] == "reject"
    assert job.fine_tuned_model is None
