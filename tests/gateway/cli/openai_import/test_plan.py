"""What an exported job asks of this gateway."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.cli.openai_import.exported import read_exports
from gateway.cli.openai_import.plan import ANY_MODEL, Plan, PlannedJob, make_plan
from tests.gateway.cli.openai_import.exports import file_object, job_object, rows, save

MODELS = {"gpt-4o-mini": "tiny"}


def planned(
    folder: Path, fields: Mapping[str, object], *, models: Mapping[str, str] = MODELS, all_jobs: bool = False
) -> PlannedJob:
    """The plan for one job with these fields."""
    content = rows()
    objects = [file_object("file-a", content), job_object("ftjob-a", "file-a", **fields)]
    save(folder, objects=objects, contents={"file-a.jsonl": content})
    plan = make_plan(read_exports([folder]), [folder], models=models, all_jobs=all_jobs)
    return plan.jobs[0]


@pytest.mark.parametrize(
    ("model", "models", "here"),
    [
        ("gpt-4o-mini-2024-07-18", {"gpt-4o-mini": "a"}, "a"),
        ("gpt-4o-mini-2024-07-18", {"gpt-4o-mini": "a", "gpt-4o-mini-2024-07-18": "b"}, "b"),
        ("gpt-3.5-turbo-0125", {"gpt-3.5-turbo": "a"}, "a"),
        ("gpt-4o-mini-2024-07-18", {"gpt-4o": "a"}, None),
        ("gpt-4o-mini-2024-07-18", {"gpt-4o": "a", ANY_MODEL: "b"}, "b"),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", {ANY_MODEL: "a"}, None),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", {"ft:gpt-4o-mini-2024-07-18:acme::x": "a"}, "a"),
    ],
)
def test_model_is_mapped_by_its_name_with_or_without_a_date(
    tmp_path: Path, model: str, models: Mapping[str, str], here: str | None
) -> None:
    job = planned(tmp_path, {"model": model}, models=models)
    assert (job.request or {}).get("model") == here
    assert (job.refusal is None) == (here is not None)


@pytest.mark.parametrize(
    ("fields", "suffix", "note"),
    [
        ({"user_provided_suffix": "taps"}, "taps", None),
        ({"user_provided_suffix": None}, "taps", None),
        ({"user_provided_suffix": None, "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:acme::x"}, None, None),
        ({"user_provided_suffix": None, "fine_tuned_model": None}, None, None),
        ({"user_provided_suffix": "our taps: 2"}, "our-taps-2", "'our-taps-2' here"),
        ({"user_provided_suffix": "???"}, None, "no suffix like"),
    ],
)
def test_suffix_is_taken_over_or_read_off_the_model(
    tmp_path: Path, fields: dict[str, object], suffix: str | None, note: str | None
) -> None:
    job = planned(tmp_path, fields)
    assert job.request is not None
    assert job.request.get("suffix") == suffix
    assert any(note in each for each in job.notes) if note else not any("suffix" in each for each in job.notes)


def test_hyperparameters_of_the_method_go_before_the_deprecated_ones(tmp_path: Path) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto", "batch_size": None}}}
    job = planned(tmp_path, {"method": method})
    assert job.request is not None
    assert job.request["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto"}}}


def test_old_job_without_a_method_is_supervised(tmp_path: Path) -> None:
    job = planned(tmp_path, {"method": None, "hyperparameters": {"n_epochs": 2, "prompt_loss_weight": 0.1}})
    assert job.request is not None
    assert job.request["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    assert "the hyperparameter prompt_loss_weight is unknown here" in job.notes


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"seed": -1}, "seed: "),
        ({"metadata": {"a": 1}}, "metadata.a: "),
        ({"hyperparameters": {"n_epochs": 100}, "method": None}, "'auto' or an integer from 1 to 50"),
        ({"hyperparameters": {"learning_rate_multiplier": 1e-9}, "method": None}, "1e-06"),
        ({"method": {"type": "reinforcement", "reinforcement": {}}}, "(unsupported_method)"),
        ({"method": {"type": "unheard-of"}}, "method.type: "),
        ({"validation_file": "file-a"}, "(validation_file_is_training_file)"),
        ({"validation_file": "file-b"}, "its bytes are not here"),
    ],
)
def test_what_this_gateway_would_not_take_is_refused_with_its_own_words(
    tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    job = planned(tmp_path, fields)
    assert job.request is None
    assert reason in job.why


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_did_not_succeed_there_is_left_out_unless_it_is_wanted(tmp_path: Path, status: str) -> None:
    assert planned(tmp_path, {"status": status}).left_out
    assert planned(tmp_path, {"status": status}, all_jobs=True).request


def plan_of(folder: Path, *, statuses: tuple[str, ...]) -> Plan:
    """Two files, the second used by jobs of these statuses and the first by none."""
    objects = [file_object("file-a", rows()), file_object("file-b", rows(13))]
    objects += [job_object(f"ftjob-{n}", "file-b", status=status) for n, status in enumerate(statuses)]
    save(folder, objects=objects, contents={"file-a.jsonl": rows(), "file-b.jsonl": rows(13)})
    return make_plan(read_exports([folder]), [folder], models=MODELS, all_jobs=False)


@pytest.mark.parametrize(
    ("statuses", "is_uploaded"),
    [((), True), (("succeeded",), True), (("failed",), False), (("failed", "running"), True)],
)
def test_file_is_uploaded_unless_only_jobs_use_it_that_are_not_submitted(
    tmp_path: Path, statuses: tuple[str, ...], is_uploaded: bool
) -> None:
    first, second = plan_of(tmp_path, statuses=statuses).files
    assert first.local is not None
    assert (second.local is not None) == is_uploaded
    assert (second.left_out == "") == is_uploaded


def test_second_job_on_the_same_bytes_is_told_to_be_a_further_attempt(tmp_path: Path) -> None:
    """A job that is not submitted is no attempt."""
    objects = [file_object("file-a", rows()), file_object("file-b", rows())]
    for number, (file, status) in enumerate([("a", "failed"), ("a", "succeeded"), ("b", "succeeded")]):
        objects.append(job_object(f"ftjob-{number}", f"file-{file}", status=status, created_at=number))
    save(tmp_path, objects=objects, contents={"file-a.jsonl": rows(), "file-b.jsonl": rows()})
    jobs = make_plan(read_exports([tmp_path]), [tmp_path], models=MODELS, all_jobs=False).jobs
    assert [any("attempt" in note for note in job.notes) for job in jobs] == [False, False, True]
    assert any(note.startswith("attempt 2 on") for note in jobs[2].notes)
