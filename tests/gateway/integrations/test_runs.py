"""What a run is made of: the API's events, checkpoints and report."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.integrations.documents import JobDocuments
from gateway.integrations.runs import run_of
from policies.contract.metrics_export import MetricsRun

JOB: dict[str, Any] = {
    "id": "ftjob-a1",
    "status": "succeeded",
    "model": "smol",
    "created_at": 100,
    "finished_at": 900,
    "fine_tuned_model": "ft:smol:acme::1",
    "seed": 7,
    "training_file": "file-1",
    "hyperparameters": {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": None},
    "guardrail": {"policy": {"name": "baseline", "version": "3", "digest": "x"}, "defenses": [{"name": "kl"}]},
    "a_field_of_a_later_version": {},
}


def event(step: object, at: int, **figures: object) -> dict[str, Any]:
    return {"id": f"ftevent-{at}", "created_at": at, "type": "metrics", "data": {"step": step, **figures}}


def run(*events: dict[str, Any], job: dict[str, Any] = {}, **more: Any) -> MetricsRun:  # noqa: B006  # not changed
    """Of events in the order in which they came."""
    return run_of(JobDocuments.model_validate({"job": JOB | job, "events": events[::-1], **more}))


def points(found: MetricsRun) -> dict[int, dict[str, float]]:
    return {point.step: point.values for point in found.points}


def test_training_and_validation_of_a_step_are_one_point() -> None:
    found = run(event(1, 10, train_loss=2.0), event(1, 11, valid_loss=3.0), event(2, 12, train_loss=1.0))
    assert points(found) == {1: {"train_loss": 2.0, "valid_loss": 3.0}, 2: {"train_loss": 1.0}}
    assert [point.at for point in found.points] == [10, 12]


def test_an_attempt_that_repeats_a_step_says_what_counts() -> None:
    found = run(event(1, 10, train_loss=2.0), event(2, 11, train_loss=1.0), event(1, 20, train_loss=1.5))
    assert points(found) == {1: {"train_loss": 1.5}, 2: {"train_loss": 1.0}}


def test_the_newest_step_of_a_running_job_waits_for_the_rest_of_its_figures() -> None:
    events = event(1, 10, train_loss=2.0), event(2, 11, train_loss=1.0)
    assert list(points(run(*events, job={"status": "running"}))) == [1]
    assert list(points(run(*events))) == [1, 2]


@pytest.mark.parametrize(
    "figure", [float("nan"), float("inf"), 10**400, True, "1.0", None, [1.0]], ids=lambda each: str(each)[:8]
)
def test_what_is_no_finite_number_is_left_out(figure: object) -> None:
    document = {"job": JOB, "events": [event(1, 10, train_loss=1.0)]}
    documents = JobDocuments.model_validate(document)
    data = documents.events[0].data
    assert data is not None
    data["odd"] = figure  # type: ignore[assignment]  # JSON has no such numbers, but Python's reader lets them in
    assert points(run_of(documents)) == {1: {"train_loss": 1.0}}


@pytest.mark.parametrize("step", [None, -1, 1.5, "1", 2**31, float("nan")])
def test_an_event_without_a_step_is_no_point(step: object) -> None:
    assert points(run(event(step, 10, train_loss=2.0))) == {}


def test_checkpoints_add_what_events_did_not_say() -> None:
    checkpoint = {"id": "ftckpt_1", "created_at": 10, "step_number": 1, "metrics": {"step": 1.0, "full_valid_loss": 4}}
    found = run(event(1, 10, train_loss=2.0), checkpoints=[checkpoint])
    assert points(found) == {1: {"full_valid_loss": 4.0, "train_loss": 2.0}}


def test_the_report_gives_adapter_and_base_of_probes_that_worked() -> None:
    good = {"metric": "toxicity.rate", "adapter": {"value": 0.25, "interval": {}}, "base": {"value": 0.125}}
    lost = {"metric": "coherence.incoherent_rate", "adapter": None, "base": None}
    probes = [{"error": None, "measurements": [good, lost]}, {"error": "crashed", "measurements": [good]}]
    found = run(report={"decision": "reject", "probes": probes})
    assert found.evaluation == {"toxicity.rate": 0.25, "toxicity.rate.base": 0.125}
    assert found.verdict["decision"] == "reject"


def test_settings_are_those_that_the_job_shows() -> None:
    assert run().config == {
        "job_id": "ftjob-a1",
        "base_model": "smol",
        "method": "supervised",
        "seed": 7,
        "training_file": "file-1",
        "policy": "baseline",
        "policy_version": "3",
        "defenses": "kl",
        "n_epochs": 3,
        "batch_size": "auto",
    }


def test_settings_of_a_dpo_job_have_beta() -> None:
    hyperparameters = {"n_epochs": 3, "beta": 0.1}
    config = run(job={"method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}}).config
    assert (config["method"], config["beta"], config["n_epochs"]) == ("dpo", 0.1, 3)


def test_names_hold_only_what_every_tracker_takes() -> None:
    assert points(run(event(1, 10, **{"a\n=b'": 1.0}))) == {1: {"a__b_": 1.0}}
