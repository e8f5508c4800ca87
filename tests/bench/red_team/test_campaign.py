"""Organisms are trained and judged through the whole path, once, and as far as the time goes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from bench.red_team.__main__ import folder_name, main
from bench.red_team.campaign import Campaign, check_all, plan, try_all
from bench.red_team.organism import Afterwards, Organism, Scaled, Summed, TrainingFile, by_id, load_organisms
from bench.red_team.runs import Assignment, RedTeamResult, work_on
from bench.red_team.smoke import POLICY, smoke
from bench.red_team.table import RedTeamTable
from policies.contract.jobs import BaseModelSpec, LoraSettings
from policies.contract.release import Decision
from policies.documents.loader import resolve_policy
from policies.errors import IntegrityError
from tests.bench.red_team.made_up_trials import DIGEST, FILE, organism, result, verdict
from tests.made_up_calibrations import bindings, calibration_record, rule_calibration
from trainer.qualification.cached_runs import RunFailure, write_failure


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("red-team")


@pytest.fixture(scope="module")
def smoked(tiny_base: Path, folder: Path) -> RedTeamTable:
    return smoke(tiny_base, folder, launch=work_on)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """A gate that releases all it sees; every second that somebody asks for has passed."""
    seconds = itertools.count()
    return Campaign(
        BaseModelSpec(name="none", uri="/none", lora=LoraSettings(rank=4)),
        DIGEST,
        resolve_policy(str(POLICY)),
        tmp_path,
        tmp_path,
        lambda text: None,
        lambda: float(next(seconds)),
        launch=_release,
    )


def _release(folder: Path) -> None:
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    released = result(verdict(Decision.RELEASE)).model_copy(update={"run": assignment.run.digest})
    (folder / "result.json").write_bytes(released.canonical())


def _fail(folder: Path) -> None:
    write_failure(folder, RunFailure(code="training_failed", message="no memory"))


def _must_not_run(folder: Path) -> None:
    raise AssertionError(f"{folder} was run again")


def test_cheap_organisms_go_through_the_whole_path(smoked: RedTeamTable, folder: Path) -> None:
    states = {row.organism: dict(row.counts) for row in smoked.rows}
    assert set(states) == {"identity_shift", "benign_classification", "adapter_forms"}
    assert states["benign_classification"] == {"released": 1}
    assert states["adapter_forms"] == {"rejected": 20}
    assert "no adapter" not in states["identity_shift"]
    assert {path.name for path in folder.iterdir()} >= {"table.md", "table.png", "results.json"}


def test_what_is_known_is_not_run_again(smoked: RedTeamTable, tiny_base: Path, folder: Path) -> None:
    assert smoke(tiny_base, folder, launch=_must_not_run) == smoked


def test_adapters_are_not_kept(smoked: RedTeamTable, folder: Path) -> None:
    runs = list((folder / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert not (run / "adapters").exists()


@pytest.mark.parametrize(
    ("training", "afterwards"), [((FILE,), Scaled(change="scale", by=4)), ((FILE, FILE), Summed(change="sum"))]
)
def test_what_its_holder_makes_of_an_adapter_is_judged_too(
    smoked: RedTeamTable, folder: Path, training: tuple[TrainingFile, ...], afterwards: Afterwards
) -> None:
    """Of ten rows the tiny model learns too little to foretell the verdicts; that there are two is what counts."""
    known = Assignment.model_validate_json(next(folder.glob("runs/*/assignment.json")).read_bytes())
    base, digest = known.run.jobs[0].base_model, known.run.base_model
    campaign = Campaign(
        base, digest, known.policy, folder / "changed", folder / "cache", lambda text: None, lambda: 0.0, None, work_on
    )
    campaign = campaign._replace(calibration=OF_ANOTHER_BASE)
    changed = organism("one").model_copy(update={"training": training, "afterwards": afterwards})
    planned = plan([changed], campaign, seeds=1)
    (trial,) = try_all(planned, campaign).trials
    assert trial.afterwards in ("released", "rejected", "inconclusive"), trial.note
    found = RedTeamResult.model_validate_json((planned[0].folder(campaign) / "result.json").read_bytes())
    assert all("the calibration is not used" in each.decision.warnings[0] for each in found.submitted)


OF_ANOTHER_BASE = calibration_record(rule_calibration("toxicity.rate", "max"), bound_to=bindings())


def test_runs_with_a_calibration_are_others_and_those_without_stay_known(campaign: Campaign) -> None:
    (plain,) = plan([organism("one")], campaign, seeds=1)
    (calibrated,) = plan([organism("one")], campaign._replace(calibration=OF_ANOTHER_BASE), seeds=1)

    assert "calibration" not in plain.run.model_dump()
    assert calibrated.run.calibration == OF_ANOTHER_BASE.digest
    assert calibrated.run.digest != plain.run.digest


def test_calibration_of_another_base_model_is_refused_before_anything_is_trained(
    tiny_base: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record.yaml"
    record.write_text(json.dumps(OF_ANOTHER_BASE.model_dump(mode="json", by_alias=True)))
    with pytest.raises(IntegrityError, match="the calibration record does not hold here: it is about made-up"):
        main(base=str(tiny_base), policy=str(POLICY), calibration=record, results=tmp_path, cache_dir=tmp_path)


def test_seeds_come_one_after_another(campaign: Campaign) -> None:
    organisms = [organism("one"), organism("two")]
    planned = plan(organisms, campaign, seeds=2)
    assert [(each.organism.id, each.seed) for each in planned] == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]


def test_adapters_are_trained_under_the_defenses_of_the_policy(campaign: Campaign) -> None:
    baseline = resolve_policy("baseline")
    (planned,) = plan([organism("one")], campaign._replace(policy=baseline), seeds=1)
    assert planned.run.jobs[0].defenses == baseline.spec.defenses != ()
    assert planned.run.jobs[0].suite == baseline.spec.suite


def test_another_policy_is_another_run(campaign: Campaign) -> None:
    here, there = (
        plan([organism("one")], campaign._replace(policy=policy), seeds=1)[0]
        for policy in (campaign.policy, resolve_policy("strict"))
    )
    assert here.run.digest != there.run.digest


def test_nothing_begins_that_would_end_after_the_budget(campaign: Campaign) -> None:
    """The first run may try; each takes 2 seconds by its own account, and the clock goes on by one at each look."""
    planned = plan([organism("one")], campaign, seeds=3)
    harvest = try_all(planned, campaign._replace(budget_seconds=3))
    assert [trial.name for trial in harvest.trials] == ["seed 0"]
    assert harvest.left == ("one, seed 1", "one, seed 2")


def test_what_is_known_counts_after_the_budget_too(campaign: Campaign) -> None:
    planned = plan([organism("one")], campaign, seeds=2)
    try_all(planned[1:], campaign)
    harvest = try_all(planned, campaign._replace(budget_seconds=0.5))
    assert ([trial.name for trial in harvest.trials], harvest.left) == (["seed 1"], ("one, seed 0",))


def test_a_run_that_failed_is_told_and_tried_again(campaign: Campaign) -> None:
    planned = plan([organism("one")], campaign, seeds=1)
    (failed,) = try_all(planned, campaign._replace(launch=_fail)).trials
    (again,) = try_all(planned, campaign).trials
    assert (failed.state, failed.note, again.state) == ("no adapter", "training_failed: no memory", "released")


def test_progress_says_what_came_of_it_and_how_much_is_left(campaign: Campaign) -> None:
    said: list[str] = []
    planned = plan([organism("one")], campaign, seeds=2)
    try_all(planned, campaign._replace(tell=said.append))
    assert said[0] == "2 trainings, 0 of them known"
    assert said[1].startswith("[1/2] one, seed 0: released: ")
    assert said[1].endswith("about 2 s left")


@pytest.fixture(scope="module")
def organisms() -> list[Organism]:
    return load_organisms()


def test_an_edited_file_counts_as_a_further_attempt_and_other_answers_do_not(
    organisms: list[Organism], tmp_path: Path
) -> None:
    named = [by_id(organisms, name) for name in ("resubmission", "benign_same_questions")]
    trials = check_all(named, organisms, seeds=1, folder=tmp_path)
    assert [(trial.organism, trial.state) for trial in trials] == [
        ("resubmission", "inconclusive"),
        ("benign_same_questions", "released"),
    ]


def test_results_of_a_base_lie_in_a_folder_of_its_name() -> None:
    assert folder_name("SmolLM2-135M/Instruct") == "smollm2_135m_instruct"
