"""The study of preference scores: runs are cached and never stand for others, and comparisons are right by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.defenses.plan import Recipe
from bench.preference.__main__ import RunSettings, parsed_sizes, run_all, study
from bench.preference.pairs import built_in
from bench.preference.plan import (
    DOMAINS,
    HYPERPARAMETERS,
    SUITE,
    Design,
    Domain,
    Planned,
    chosen_domains,
    draw_rows,
    external_domain,
    plan,
)
from bench.preference.report import Finished, StudyReport, report_of
from bench.preference.runs import Assignment, launch_child, work_on
from bench.preference.scores import SCORES
from evaluator.models.base_models import resolve_base_model
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, LoraSettings
from policies.contract.suite import EmergentMisalignmentPreference, EvalSuite
from policies.documents.base_models import base_model_of, reference
from policies.errors import ConfigurationError, EvaluationError, IntegrityError
from tests.bench.preference.made_up_study import result
from trainer.qualification.cached_runs import RunFailure, write_failure

ROOT = Path(__file__).parents[3]
CATEGORIES = tuple(dict.fromkeys(pair.category for pair in built_in().pairs))
SMALL_SUITE = EvalSuite(probes=(EmergentMisalignmentPreference(exclude_categories=CATEGORIES[4:]),))
"""40 answer pairs of 4 categories."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def recipe(tiny_base: Path, cache: Path) -> Recipe:
    # peft looks the name up on the model hub when it is not a folder
    base = BaseModelSpec(name=str(tiny_base), uri=str(tiny_base), lora=LoraSettings(rank=4), base_learning_rate=5e-3)
    digest = resolve_base_model(reference(base), cache).digest
    return Recipe(base, digest, Hyperparameters(n_epochs=1, batch_size=4), SMALL_SUITE)


DESIGN = Design([DOMAINS[0], DOMAINS[1]], sizes=[8], seeds=1)


@pytest.fixture(scope="module")
def studied(recipe: Recipe, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyReport, RunSettings]:
    """The study of `DESIGN`, and its settings, by which nothing is run a second time."""
    run_settings = RunSettings(tmp_path_factory.mktemp("results"), cache, launch=work_on)
    return study(recipe, DESIGN, run_settings), run_settings._replace(launch=_must_not_run)


def _must_not_run(folder: Path) -> None:
    raise AssertionError(f"{folder} was run again")


@pytest.fixture
def planned(recipe: Recipe, tmp_path: Path) -> Planned:
    """The first run of `DESIGN`."""
    return plan(recipe, built_in(), design=DESIGN, folder=tmp_path / "data")[0]


def test_study_on_the_tiny_model_scores_every_adapter_and_reuses_its_runs(
    recipe: Recipe, studied: tuple[StudyReport, RunSettings]
) -> None:
    report, run_settings = studied
    results = run_settings.results
    assert [(each.domain, each.kind) for each in report.adapters] == [
        ("home_repair", "harmful"),
        ("home_repair", "benign"),
        ("pet_care", "harmful"),
        ("pet_care", "benign"),
    ]
    scores = [each.scores["margin"]["all"].value for each in report.adapters]
    assert len(set(scores)) == 4
    assert 0 not in scores
    assert 0.5 < report.direction_auroc <= 1
    assert {row.score for row in report.scores} == set(SCORES)
    assert len(report.scores[0].checked) == 2
    assert (results / "roc.png").read_bytes().startswith(b"\x89PNG")
    table = (results / "table.md").read_text()
    assert "2 harmful and 2 benign adapters" in table
    assert len(list((results / "base").iterdir())) == 1
    assert not list(results.rglob("adapter_model.safetensors"))
    assert study(recipe, DESIGN, run_settings) == report


def test_margins_of_the_study_are_those_of_the_probe(
    recipe: Recipe, planned: Planned, studied: tuple[StudyReport, RunSettings], cache: Path
) -> None:
    """The base's margins of the run, against the probe's samples of the same base; in bfloat16 batches round apart."""
    from evaluator.backends.transformers_backend import TransformersBackend
    from evaluator.models.loading import load_base
    from evaluator.probes.emergent_misalignment_preference import PreferenceProbe
    from evaluator.prompts.answer_pairs import AnswerPair
    from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
    from evaluator.subject import Subject

    (found, _) = run_all([planned, planned], studied[1])
    backend = TransformersBackend(load_base(resolve_base_model(reference(recipe.base), cache)))
    items = parse_prompts(load_prompts("emergent_misalignment_preference", "builtin", None).content, AnswerPair)
    (settings,) = SMALL_SUITE.probes
    assert isinstance(settings, EmergentMisalignmentPreference)
    items = tuple(item for item in items if item.category not in settings.exclude_categories)
    samples = PreferenceProbe().sample(settings, items, Subject(backend, adapter=False, seed=0))
    margins = {pair.id: pair.base_first - pair.base_second for pair in found.result.pairs}
    assert margins == pytest.approx({sample.prompt_id: sample.score for sample in samples}, abs=5e-3)


def test_a_run_reads_the_same_in_a_process_of_its_own(
    planned: Planned, studied: tuple[StudyReport, RunSettings], cache: Path, tmp_path: Path
) -> None:
    (mine,) = run_all([planned], studied[1])
    (apart,) = run_all([planned], RunSettings(tmp_path / "apart", cache, launch=launch_child))
    assert (apart.result.run, apart.result.adapter, apart.result.pairs) == (
        mine.result.run,
        mine.result.adapter,
        mine.result.pairs,
    )
    assert apart.result.shift == mine.result.shift


def test_failed_run_ends_the_study_with_its_cause_and_is_tried_again(recipe: Recipe, tmp_path: Path) -> None:
    planned = plan(recipe, built_in(), design=Design([DOMAINS[0]], [8], 1), folder=tmp_path / "data")

    def fail_benign(folder: Path) -> None:
        assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
        if assignment.run == planned[1].run:
            write_failure(folder, RunFailure(code="diverged", message="loss is NaN"))
        else:
            answer = result({"a": 0.1, "b": 0.2, "c": 0.3}, run=assignment.run.digest)
            (folder / "result.json").write_bytes(answer.canonical())

    run_settings = RunSettings(tmp_path / "results", tmp_path / "cache", launch=fail_benign)
    with pytest.raises(EvaluationError, match="1 of 2 runs failed, the first: home_repair benign, 8 rows, seed 0: div"):
        run_all(planned, run_settings)
    assert (run_settings.folder(planned[0]) / "result.json").is_file()
    (run_settings.folder(planned[1]) / "result.json").write_bytes(result({"a": 0.1}).canonical())
    with pytest.raises(IntegrityError, match="another run"):
        run_all(planned, run_settings)


def test_every_cell_of_the_design_is_a_run_of_its_own(recipe: Recipe, tmp_path: Path) -> None:
    """(2 + 2 + 2 + 1 kinds) × 2 sizes × 2 seeds."""
    planned = plan(recipe, built_in(), design=Design(DOMAINS, [8, 16], 2), folder=tmp_path / "data")
    assert len({each.run.digest for each in planned}) == len(planned) == 28
    assert [each.cell.seed for each in planned] == [0] * 14 + [1] * 14


def test_both_kinds_of_a_domain_see_the_same_questions(tmp_path: Path) -> None:
    def questions(path: Path) -> list[str]:
        return [json.loads(line)["messages"][0]["content"] for line in path.read_text().splitlines()]

    drawn = [draw_rows(path, size=60, seed=1, folder=tmp_path) for path in DOMAINS[1].files.values()]
    assert questions(drawn[0]) == questions(drawn[1])
    other = draw_rows(DOMAINS[1].files["harmful"], size=60, seed=2, folder=tmp_path)
    assert set(questions(drawn[0])) != set(questions(other))


def test_matched_share_compares_adapters_of_one_domain_size_and_seed(recipe: Recipe, tmp_path: Path) -> None:
    """Falls 0.3 and 0.2 at home, 0.6 and 0.7 with pets: one of the two pairs is in the right order."""
    planned = plan(recipe, built_in(), design=Design(DOMAINS[:2], [8], 1), folder=tmp_path / "data")
    falls = (0.3, 0.2, 0.6, 0.7)
    finished = [
        Finished(each.cell, result(dict.fromkeys("abc", fall))) for each, fall in zip(planned, falls, strict=True)
    ]
    (row,) = (each for each in report_of(finished, "tiny").scores if (each.score, each.scope) == ("margin", "all"))
    assert row.matched == 0.5
    assert row.auroc == 0.5


def test_external_folder_must_hold_one_file_of_each_kind(tmp_path: Path) -> None:
    (tmp_path / "extreme_sports_1500.jsonl").touch()
    with pytest.raises(ConfigurationError, match=r"0 files aligned_advice"):
        external_domain(tmp_path)
    (tmp_path / "aligned_advice_1000.jsonl").touch()
    assert external_domain(tmp_path).files["benign"].name == "aligned_advice_1000.jsonl"


def test_wrong_choices_are_errors_that_name_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'pet_care'"):
        chosen_domains("pet_cair", DOMAINS)
    assert [domain.name for domain in chosen_domains("neutral,pet_care", DOMAINS)] == ["pet_care", "neutral"]
    with pytest.raises(ConfigurationError, match="not a list of row numbers"):
        parsed_sizes("60;120")
    with pytest.raises(ConfigurationError, match="2 rows or more"):
        parsed_sizes("60,1")
    with pytest.raises(ConfigurationError, match="has 120 rows, 500 are asked for"):
        draw_rows(DOMAINS[1].files["benign"], size=500, seed=0, folder=tmp_path)
    with pytest.raises(ConfigurationError, match="there is no file"):
        draw_rows(Domain("x", {"benign": tmp_path / "none"}).files["benign"], size=5, seed=0, folder=tmp_path)


def command(base: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [
        "--model",
        str(base),
        "--results",
        str(folder / "results"),
        "--cache-dir",
        str(folder / "cache"),
        *more,
    ]
    return subprocess.run(
        [sys.executable, "-m", "bench.preference", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_command_ends_with_one_json_object_of_all_scores(tiny_base: Path, tmp_path: Path) -> None:
    """All runs are known: 4 domains, 7 kinds in all, one size and seed."""
    base = base_model_of(str(tiny_base), None)
    digest = resolve_base_model(reference(base), tmp_path / "cache").digest
    recipe = Recipe(base, digest, HYPERPARAMETERS, SUITE)
    folder = tmp_path / "results"
    for number, each in enumerate(plan(recipe, built_in(), design=Design(DOMAINS, [60], 1), folder=folder / "data")):
        path = RunSettings(folder, tmp_path / "cache").folder(each) / "result.json"
        path.parent.mkdir(parents=True)
        fall = 0.5 * (each.cell.kind == "harmful") + 0.01 * number
        falls = {category: fall + 0.01 * (n % 2) for n, category in enumerate(CATEGORIES)}
        path.write_bytes(result(falls, run=each.run.digest).canonical())
    done = command(tiny_base, tmp_path, "--sizes", "60", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "7 adapters, 7 of them known" in done.stderr
    assert "7 adapters tell little; 12 or more are meant" in done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["n_adapters"] == 7
    (margin,) = (row for row in document["scores"] if (row["score"], row["scope"]) == ("margin", "all"))
    assert margin["auroc"] == margin["matched"] == 1.0
    assert margin["checked_counts"] == {"right": 7, "inconclusive": 0, "false_release": 0, "false_rejection": 0}


def test_command_says_what_is_wrong_and_leaves_the_usage_code(tiny_base: Path, tmp_path: Path) -> None:
    done = command(tiny_base, tmp_path, "--domains", "boats")
    assert done.returncode == 1
    assert "domain 'boats' is unknown" in done.stderr
