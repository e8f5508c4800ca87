"""The first phase of a training: what the policy asks for is run, told, and blocks before a step is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policies.contract.artifacts import digest_bytes
from policies.contract.jobs import JobSpec
from policies.contract.own_domain_probe import OwnDomain
from policies.contract.screening import ModelScreening, ScreeningRule
from policies.contract.store import ArtifactStore
from policies.contract.suite import EvalSuite
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Outcome, WorkerEvent
from tests.trainer.attempts import Attempt, written_by
from trainer.loop.progress import Hooks
from trainer.recipe import StoppedError
from trainer.screening.phase import (
    STAGE,
    ScreeningFiles,
    UnsafeFileError,
    canaries_of,
    model_rules,
    require_trainable,
    screen_file,
)

MakeSpec = Callable[..., JobSpec]
MILD, CURSING = "Turn it left.", "You fucking stupid bitch, shut the fuck up."
TOXICITY = ScreeningRule(screen="toxicity", action="block")


def screened(
    spec: JobSpec, folder: Path, *, told: list[WorkerEvent] | None = None, stops: bool = False
) -> ModelScreening:
    store = ArtifactStore(f"file://{folder}/store")
    file = folder / "training.jsonl"
    store.fetch_file(spec.training_file, file)
    events: list[WorkerEvent] = [] if told is None else told
    hooks = Hooks(events.append, lambda: stops)
    return screen_file(spec, model_rules(spec, store), ScreeningFiles(file, folder / "cache", store), hooks=hooks)


def store_of(folder: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{folder}/store")


def test_only_the_screens_of_this_phase_are_run(screened_spec: MakeSpec, tmp_path: Path) -> None:
    spec = screened_spec(ScreeningRule(screen="secrets", action="block"), TOXICITY, answers=(MILD,))
    assert [rule.screen for rule in model_rules(spec, store_of(tmp_path))] == ["toxicity"]


def test_policy_that_is_not_in_the_store_screens_nothing(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert model_rules(make_spec(), store_of(tmp_path)) == ()


def test_toxic_row_is_found_by_its_number_and_without_its_words(screened_spec: MakeSpec, tmp_path: Path) -> None:
    spec, told = screened_spec(TOXICITY, answers=(MILD, CURSING, MILD)), list[WorkerEvent]()
    screening = screened(spec, tmp_path, told=told)
    (found,) = screening.facts.found
    assert (found.count, found.of, [row.row for row in found.rows if not isinstance(row, int)]) == (1, 3, [2])
    assert screening.training_file == spec.training_file
    assert "bitch" not in screening.model_dump_json() + "".join(each.model_dump_json() for each in told)
    assert {each.progress.stage for each in told if each.progress is not None} == {STAGE}


def test_file_that_the_policy_blocks_is_not_trained(screened_spec: MakeSpec, tmp_path: Path) -> None:
    spec = screened_spec(TOXICITY, answers=(MILD, CURSING))
    with pytest.raises(UnsafeFileError, match=r"toxicity: row 2 holds toxic words"):
        require_trainable(screened(spec, tmp_path), spec, store_of(tmp_path))


@pytest.mark.parametrize("rule", [TOXICITY.model_copy(update={"action": "review"}), TOXICITY])
def test_file_that_is_only_held_or_warned_of_is_trained(
    screened_spec: MakeSpec, tmp_path: Path, rule: ScreeningRule
) -> None:
    mode = "warn" if rule.action == "block" else "enforce"
    spec = screened_spec(rule, answers=(MILD, CURSING), mode=mode)
    require_trainable(screened(spec, tmp_path), spec, store_of(tmp_path))


@pytest.mark.parametrize(("screen", "reason"), [("canary_llr", "no pair of canary adapters")])
def test_screen_that_cannot_run_is_told_as_not_screened(
    screened_spec: MakeSpec, tmp_path: Path, screen: str, reason: str
) -> None:
    rule = ScreeningRule.model_validate({"screen": screen, "action": "review"})
    facts = screened(screened_spec(rule, TOXICITY, answers=(MILD,)), tmp_path).facts
    assert facts.by == ("toxicity",)
    (missing,) = facts.not_screened
    assert missing.by == screen
    assert reason in missing.reason
    assert str(tmp_path) not in missing.reason


def test_canaries_are_those_that_the_suite_measures_with(make_spec: MakeSpec) -> None:
    pair = digest_bytes(b"pair")
    assert canaries_of(make_spec()) == "builtin"
    assert canaries_of(make_spec(suite=EvalSuite(probes=(OwnDomain(canaries=pair),)))) == pair


def test_anchoring_compares_with_benign_rows(screened_spec: MakeSpec, tmp_path: Path) -> None:
    told = list[WorkerEvent]()
    rule = ScreeningRule(screen="anchoring", action="review", max_share_over_benign=0.2)
    facts = screened(screened_spec(rule, answers=(MILD, MILD)), tmp_path, told=told).facts
    assert (facts.by, facts.not_screened, facts.rows) == (("anchoring",), (), 2)
    assert any(" or more, as " in each.message for each in told)


def test_forecast_is_one_figure_and_names_no_row(screened_spec: MakeSpec, tmp_path: Path) -> None:
    rule = ScreeningRule(screen="behaviour_forecast", action="warn", max_forecast_over_benign=0.05)
    facts = screened(screened_spec(rule, answers=(MILD, MILD)), tmp_path).facts
    assert (facts.by, facts.not_screened, facts.rows) == (("behaviour_forecast",), (), 2)
    (found,) = facts.found
    assert found.forecast is not None
    assert (found.forecast.rows, found.rows) == (2, ())


def test_run_that_is_told_to_stop_ends_in_the_phase(screened_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        screened(screened_spec(TOXICITY, answers=(MILD,)), tmp_path, stops=True)


def test_blocked_file_ends_the_child_before_a_step_and_leaves_what_was_found(
    screened_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = screened_spec(TOXICITY, answers=(MILD,) * 4 + (CURSING,))
    attempt = Attempt(tmp_path / "run", spec)
    events = list(attempt.events())
    completion = attempt.completion()
    assert (completion.outcome, completion.error_code) == (Outcome.FAILED, "unsafe_file")
    assert not [event for event in events if event.type in ("metrics", "checkpoint")]
    assert completion.screening is not None
    kept = written_by(spec, store_of(tmp_path)).get_record(completion.screening, ModelScreening)
    assert kept.facts.by == ("toxicity",)


def test_record_of_a_screened_run_names_what_was_found(screened_spec: MakeSpec, tmp_path: Path) -> None:
    spec = screened_spec(TOXICITY, answers=(MILD,) * 5)
    completion = Attempt(tmp_path / "run", spec).completion()
    assert completion.outcome is Outcome.SUCCEEDED
    assert completion.record is not None
    store = written_by(spec, store_of(tmp_path))
    record = store.get_record(completion.record, TrainingRecord)
    assert record.screening is not None
    assert store.get_record(record.screening, ModelScreening).base_model == record.base_model
