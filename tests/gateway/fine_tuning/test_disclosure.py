"""What a tenant is shown of a verdict under a policy that discloses no figures: everything it can ask for is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from pydantic import BaseModel

from gateway.fine_tuning.exporting import _documents
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport, SampleOutcome, SampleRecord
from policies.contract.probe_overlap import NearRow, OverlapScan
from policies.contract.release import GateDecision
from policies.contract.training import DefenseEvidence
from policies.contract.worker_api import Outcome
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import HandWorker, evaluate, job_row, policy_under, submit_queued, train
from tests.gateway.policy_variants import variant_of_baseline
from tests.gateway.records import training_record

DRIFT, HALF_WIDTH = 0.4321, 0.0173
REPORT = "/v1/guardrail/jobs/{job_id}/report"
COUNTED_FROM = 30
"""Smaller whole numbers are everywhere."""
_NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")
_OPAQUE = re.compile(
    r"sha256:[0-9a-f]{64}|\b(?:ftjob|ftevent|ftckpt|file|org)[-_]\w+|<style>.*?</style>"
    r'|"defenses":\[.*?\]',  # what the job is trained under, which the tenant may choose
    re.DOTALL,
)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    for disclosure in ("full", "coarse"):
        variant_of_baseline(tmp_path, disclosure, disclosure=disclosure)
        folder = variant_of_baseline(tmp_path, f"{disclosure}-twice", disclosure=disclosure, evaluators=2)
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


def figures_of(record: BaseModel) -> set[float]:
    """All numbers of a record that could tell something."""

    def walk(value: Any) -> Iterator[float]:  # Any: JSON
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from walk(each)
        elif isinstance(value, float) and not value.is_integer():
            yield abs(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value >= COUNTED_FROM:
            yield float(value)

    return {round(each, 3) for each in walk(record.model_dump(mode="json"))}


def answers(gateway: LiveGateway, client: OpenAI, job_id: str) -> dict[str, str]:
    """By its path, everything that can be read about a job, and its lists; and what trackers are given."""
    job = job_row(gateway.services, job_id)
    names = {"job_id": job_id, "file_id": job.result_file or ""}
    found = {}
    for path, methods in gateway.app.openapi()["paths"].items():
        wanted = set(re.findall(r"{(\w+)}", path))
        if "get" in methods and wanted <= names.keys():
            headers = {"authorization": f"Bearer {client.api_key}"}
            answer = httpx.get(gateway.url + path.format(**names) + "?limit=100", headers=headers)
            found[path] = answer.text
    with gateway.services.database.reading() as session:
        row, tenant = session.get_one(Job, job_id), session.get_one(Tenant, job.tenant_id)
        found["tracker"] = _documents(session, gateway.services, job=row, tenant=tenant).model_dump_json()
    return found


def told_figures(text: str, figures: set[float]) -> set[str]:
    """The numbers in a text that are figures of a record, whichever way they are written."""
    numbers = _NUMBER.findall(_OPAQUE.sub(" ", text))
    return {each for each in numbers if round(abs(float(each)), 3) in figures}


def sampled(gateway: LiveGateway) -> Digest:
    said = SampleOutcome(output="It began with these words, had a secret middle, and ended so.", score=0.7654)
    sample = SampleRecord(
        probe="toxicity",
        metric="toxicity.rate",
        prompt_id="p",
        cluster="c",
        prompt="Say it",
        adapter=said,
        base=SampleOutcome(score=0.0),
    )
    return gateway.services.stores.shared.put_bytes(sample.canonical() + b"\n")


def overlapping() -> OverlapScan:
    near = NearRow(row=77, probe="capability", prompt_id="cap-general_knowledge-01")
    return OverlapScan(n_rows=91, n_near=53, n_near_twin=41, probes=("capability",), rows=(near,))


class Case:
    """A job under a policy, and the records of its verdicts."""

    def __init__(self, gateway: LiveGateway, worker: HandWorker, policy: str) -> None:
        self.gateway, self.worker, self.policy = gateway, worker, policy
        self.client = gateway.client(gateway.tenant_key(f"tenant-of-{policy}", policy=policy))
        self.job_id = submit_queued(gateway, self.client)
        self.figures: set[float] = set()
        train(gateway, worker, self.job_id)

    def evaluate(self, **drawn: Any) -> None:  # Any: as `hand_worker.evaluate` takes them
        record, decision = evaluate(
            self.gateway,
            self.worker,
            self.job_id,
            samples=sampled(self.gateway),
            overlap=overlapping(),
            **drawn,
        )
        store = self.gateway.services.stores.of_job(self.job_id)
        report = store.get_record(record, EvalReport)
        self.figures |= figures_of(store.get_record(decision, GateDecision))
        self.figures |= {each for probe in report.probes for each in figures_of(probe)}
        self.figures |= {0.765, 91.0, 53.0, 77.0}

    def told(self) -> dict[str, set[str]]:
        """By its path, the figures that an answer tells."""
        found = {path: told_figures(text, self.figures) for path, text in self.answers().items()}
        return {path: numbers for path, numbers in found.items() if numbers}

    def answers(self) -> dict[str, str]:
        return answers(self.gateway, self.client, self.job_id)


def rejected(case: Case) -> None:
    case.evaluate(drift=DRIFT, half_width=HALF_WIDTH)
    assert job_row(case.gateway.services, case.job_id).phase == "rejected"


def undecided(case: Case) -> None:
    case.evaluate(drift=0.0123, half_width=DRIFT)
    assert job_row(case.gateway.services, case.job_id).error_code == "safety_check_inconclusive"


def disagreed(case: Case) -> None:
    case.evaluate(half_width=HALF_WIDTH)
    case.evaluate(kind="confirm", drift=DRIFT, half_width=HALF_WIDTH)
    assert job_row(case.gateway.services, case.job_id).error_code == "evaluators_disagree"


def released(case: Case) -> None:
    case.evaluate(half_width=HALF_WIDTH)
    assert job_row(case.gateway.services, case.job_id).phase == "released"


ENDS = {"rejected": rejected, "undecided": undecided, "disagreed": disagreed, "released": released}


@pytest.mark.parametrize("end", ENDS)
def test_no_figure_of_a_coarse_verdict_is_in_any_answer(
    live_gateway: LiveGateway, worker: HandWorker, end: str
) -> None:
    case = Case(live_gateway, worker, "coarse-twice" if end == "disagreed" else "coarse")
    ENDS[end](case)
    assert case.told() == {}


def test_figures_of_a_full_verdict_are_told_where_they_were(live_gateway: LiveGateway, worker: HandWorker) -> None:
    """So the test above looks for what it says."""
    case = Case(live_gateway, worker, "full")
    rejected(case)
    assert {
        "/v1/fine_tuning/jobs",
        "/v1/fine_tuning/jobs/{job_id}",
        "/v1/fine_tuning/jobs/{job_id}/events",
        REPORT,
        f"{REPORT}.html",
        "tracker",
    } <= set(case.told())


def test_coarse_verdict_names_rules_outcomes_and_directions(live_gateway: LiveGateway, worker: HandWorker) -> None:
    case = Case(live_gateway, worker, "coarse")
    rejected(case)
    told, services = case.answers(), live_gateway.services
    report, page = json.loads(told[REPORT]), told[f"{REPORT}.html"]
    policy, job = policy_under(services, case.job_id), job_row(services, case.job_id)
    rules = {rule["rule"]: (rule["outcome"], rule["direction"]) for rule in report["rules"]}
    assert [*rules] == [rule.id for rule in policy.spec.rules]
    assert rules["toxicity-increase"] == ("fail", "too_high")
    assert all(set(rule) == {"rule", "outcome", "direction"} for rule in report["rules"])
    assert (report["disclosure"], report["probes"], report["confidence"]) == ("coarse", [], None)
    assert "toxicity-increase: too high." in (job.error_message or "")
    assert "toxicity-increase" in page
    assert "It began" not in page
    assert job.decision_digest is not None  # the operator's record has all
    decision = services.stores.of_job(job.id).get_record(job.decision_digest, GateDecision)
    assert any(result.judged and result.judged.value == pytest.approx(DRIFT) for result in decision.results)


def test_defense_that_did_not_act_is_told_without_its_figures(live_gateway: LiveGateway, worker: HandWorker) -> None:
    client = live_gateway.client(live_gateway.tenant_key(policy="coarse"))
    job_id = submit_queued(live_gateway, client)
    claim, store = worker.must_claim(job_id), live_gateway.services.stores.of_job(job_id)
    idle = [
        DefenseEvidence(name=each.name, acted=False, figures={"drop": DRIFT}, explanation=f"The drop was {DRIFT}.")
        for each in claim.spec.defenses
    ]
    record = store.put_record(training_record(claim.spec, store, evidence=tuple(idle)))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record)
    told = answers(live_gateway, client, job_id)
    assert "did not act" in told["/v1/fine_tuning/jobs/{job_id}"]
    assert not any(str(DRIFT) in text for text in told.values())
