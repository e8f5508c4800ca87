"""The table of defenses: runs are cached and never stand for others, errors are rows, figures are right by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.defenses.__main__ import RunSettings, bench, run_all, wanted_tasks
from bench.defenses.plan import DEFENSES, Dataset, Recipe, chosen_defenses, opswap_dataset, plan
from bench.defenses.plot import Point, pareto_front
from bench.defenses.records import RunResult
from bench.defenses.report import Cell, Report, markdown, panels, report_of
from bench.defenses.runs import launch_child, work_on
from evaluator.models.base_models import resolve_base_model
from evaluator.prompts.prompt_sets import load_prompts
from policies.contract.defenses import DEFENSE_NAMES
from policies.contract.evaluation import Estimate, Interval
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, LoraSettings
from policies.contract.suite import Coherence, EmergentMisalignmentPreference, EvalSuite
from policies.documents.base_models import reference
from policies.errors import ConfigurationError, IntegrityError
from trainer.qualification.cached_runs import RunFailure, write_failure

ROOT = Path(__file__).parents[3]
NOTHING = "sha256:" + "0" * 64
BASE_LOSS, LOSS = 2.0, 1.5
CATEGORIES = sorted(
    {
        json.loads(line)["category"]
        for line in load_prompts("emergent_misalignment_preference", "builtin", None).content.splitlines()
    }
)
SMALL_SUITE = EvalSuite(
    probes=(EmergentMisalignmentPreference(exclude_categories=tuple(CATEGORIES[3:])), Coherence(max_new_tokens=16))
)
"""30 answer pairs of 3 categories."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def recipe(tiny_base: Path, tmp_path: Path) -> Recipe:
    # peft looks the name up on the model hub when it is not a folder
    base = BaseModelSpec(name=str(tiny_base), uri=str(tiny_base), lora=LoraSettings(rank=4), base_learning_rate=5e-3)
    digest = resolve_base_model(reference(base), tmp_path / "cache").digest
    return Recipe(base, digest, Hyperparameters(n_epochs=1, batch_size=8), SMALL_SUITE)


def result(run: str = NOTHING, *, ema: float = -0.1, seconds: float = 10.0) -> RunResult:
    def known(value: float) -> Estimate:
        return Estimate(value=value, interval=Interval(low=value - 1, high=value + 1))

    return RunResult(
        run=run,
        adapter=NOTHING,
        figures={"ema_change": known(ema), "held_out.loss": known(LOSS)},
        base_figures={"held_out.loss": known(BASE_LOSS)},
        seconds=seconds,
        measuring_seconds={},
        peak_memory_bytes=1 << 30,
        evidence=(),
        versions={},
    )


class Launcher:
    """Answers every run at once, and counts them; the ones in `failing` fail."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.failing = failing
        self.count = 0

    def __call__(self, folder: Path) -> None:
        self.count += 1
        run = json.loads((folder / "assignment.json").read_text())["run"]
        names = {defense["name"] for defense in run["job"]["defenses"]}
        if names & set(self.failing):
            write_failure(folder, RunFailure(code="defense_failed", message="no vector | for this model"))
        else:
            answer = result(digest_of(folder))
            (folder / "result.json").write_bytes(answer.canonical())


def digest_of(folder: Path) -> str:
    from bench.defenses.records import Assignment

    return Assignment.model_validate_json((folder / "assignment.json").read_bytes()).run.digest


def test_every_defense_of_the_contract_has_a_row() -> None:
    assert {defense.name for row in DEFENSES.values() for defense in row} == set(DEFENSE_NAMES)


def test_bench_on_the_tiny_model_fills_every_cell(
    recipe: Recipe, make_chat: Callable[..., Dataset], tmp_path: Path
) -> None:
    datasets = [make_chat("malicious"), opswap_dataset(rows=12, test_rows=6, folder=tmp_path / "data")]
    run_settings = RunSettings(tmp_path / "results", tmp_path / "cache", launch=work_on)
    report = bench(recipe, ["none", "inoculation"], datasets, seeds=1, run_settings=run_settings)
    for row in report.rows:
        chat, opswap = row.datasets["malicious"], row.datasets["opswap"]
        assert (row.error, chat.errors, opswap.errors) == (None, (), ())
        assert {"ema_change", "incoherent_rate", "held_out.loss", "held_out.token_accuracy"} <= set(chat.figures)
        assert {"opswap.tier_1", "opswap.tier_2", "opswap.tier_3", "opswap.accuracy"} <= set(opswap.figures)
        assert chat.figures["ema_change"].over_prompts[0].low < chat.figures["ema_change"].value
        assert chat.figures["held_out.loss_decrease"].value > 0.1
        assert chat.figures["seconds"].value > 0
    first, second = (row.datasets["malicious"].figures["ema_change"].value for row in report.rows)
    assert first != second
    table = (tmp_path / "results" / "table.md").read_text()
    assert "one seed, so no interval over seeds" in table
    assert (tmp_path / "results" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert Report.model_validate_json((tmp_path / "results" / "results.json").read_bytes()) == report


def test_command_runs_in_child_processes_and_ends_with_one_json_object(tiny_base: Path, tmp_path: Path) -> None:
    """One run, and a row without one; the adapter is not kept. A second call repeats nothing."""
    command = [sys.executable, "-m", "bench.defenses", "--malicious", "unused", "--benign", "unused"]
    command += ["--model", str(tiny_base), "--skip", "malicious,benign", "--defenses", "none,safe_lora"]
    command += ["--seeds", "1", "--opswap-rows", "6", "--opswap-test-rows", "3"]
    command += ["--results", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    calls = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
        for _ in range(2)
    ]
    assert "[1/1] none, opswap, seed 0: done" in calls[0].stderr
    assert "1 runs, 1 of them known" in calls[1].stderr
    assert calls[0].stdout == calls[1].stdout
    document = json.loads(calls[0].stdout.splitlines()[-1])
    assert {"seeds": 1, "model": tiny_base.name}.items() <= document.items()
    assert [row["error"] for row in document["rows"]] == [None, "no unaligned partner"]
    assert document["rows"][0]["datasets"]["opswap"]["errors"] == []
    assert not list((tmp_path / "results").rglob("adapter_model.safetensors"))


def test_finished_runs_are_not_repeated_and_failed_ones_are(
    recipe: Recipe, make_chat: Callable[..., Dataset], tmp_path: Path
) -> None:
    planned = plan(recipe, ["none", "ldifs"], [make_chat("malicious")], seeds=2)
    launcher = Launcher(failing=("ldifs",))
    run_settings = RunSettings(tmp_path / "results", tmp_path / "cache", launch=launcher)
    run_all(planned, run_settings)
    assert launcher.count == 4
    launcher.failing = ()
    cells = run_all(planned, run_settings)
    assert launcher.count == 6
    assert all(isinstance(cell.outcome, RunResult) for cell in cells)
    run_all(planned, run_settings)
    assert launcher.count == 6


def test_another_seed_or_file_or_setting_is_another_run(recipe: Recipe, make_chat: Callable[..., Dataset]) -> None:
    """2 seeds × 2 files × 2 settings, and the 8 of another number of epochs."""
    datasets = [make_chat("malicious"), make_chat("benign")]
    longer = recipe._replace(hyperparameters=Hyperparameters(n_epochs=2, batch_size=8))
    runs = [p.run for r in (recipe, longer) for p in plan(r, ["none", "ldifs"], datasets, seeds=2)]
    assert len({run.digest for run in runs}) == len(runs) == 16


def test_result_of_another_run_is_refused(recipe: Recipe, make_chat: Callable[..., Dataset], tmp_path: Path) -> None:
    planned = plan(recipe, ["none"], [make_chat("malicious")], seeds=1)
    run_settings = RunSettings(tmp_path / "results", tmp_path / "cache", launch=Launcher())
    folder = run_settings.folder(planned[0])
    folder.mkdir(parents=True)
    (folder / "result.json").write_bytes(result().canonical())
    with pytest.raises(IntegrityError, match="another run"):
        run_all(planned, run_settings)


def test_defense_that_fails_in_one_seed_is_a_row_with_its_error() -> None:
    cells = [
        Cell("ldifs", "malicious", 0, result()),
        Cell("ldifs", "malicious", 1, RunFailure(code="defense_failed", message="did not act |")),
    ]
    report = report_of(cells, ["ldifs"], {}, seeds=2)
    assert report.rows[0].datasets["malicious"].figures == {}
    assert report.rows[0].datasets["malicious"].errors == ("seed 1: did not act |",)
    assert "| ldifs | seed 1: did not act \\| |" in markdown(report, "tiny")


def test_crash_of_the_child_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "assignment.json").write_text("{}")
    launch_child(tmp_path)
    failure = RunFailure.model_validate_json((tmp_path / "failure.json").read_bytes())
    assert failure.code == "crashed"
    assert "exit status 1" in failure.message


def test_safe_lora_without_an_unaligned_partner_is_a_row_that_says_so(
    recipe: Recipe, make_chat: Callable[..., Dataset], tmp_path: Path
) -> None:
    launcher = Launcher()
    run_settings = RunSettings(tmp_path / "results", tmp_path / "cache", launch=launcher)
    report = bench(recipe, ["none", "safe_lora"], [make_chat("malicious")], seeds=1, run_settings=run_settings)
    assert launcher.count == 1
    assert report.rows[1].error == "no unaligned partner"
    assert "| safe_lora | no unaligned partner |" in (tmp_path / "results" / "table.md").read_text()


def test_figures_over_seeds_are_means_with_t_intervals() -> None:
    """−0.1, −0.2, −0.3: mean −0.2, s = 0.1, t(0.975, 2) = 4.30265, half-width 4.30265 · 0.1 / √3 = 0.24841."""
    cells = [Cell("none", "malicious", n, result(ema=ema)) for n, ema in enumerate((-0.1, -0.2, -0.3))]
    report = report_of(cells, ["none"], {}, seeds=3)
    figure = report.rows[0].datasets["malicious"].figures["ema_change"]
    assert figure.interval is not None
    assert figure.value == pytest.approx(-0.2)
    assert figure.interval.high + 0.2 == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    assert "-0.200 ± 0.248" in markdown(report, "tiny")


def test_dataset_with_fewer_seeds_says_so_in_its_heading(make_chat: Callable[..., Dataset], recipe: Recipe) -> None:
    shorter = make_chat("opswap")._replace(seeds=1)
    planned = plan(recipe, ["none"], [make_chat("malicious"), shorter], seeds=2)
    assert [(each.dataset.name, each.seed) for each in planned] == [("malicious", 0), ("opswap", 0), ("malicious", 1)]
    cells = [Cell("none", each.dataset.name, each.seed, result()) for each in planned]
    table = markdown(report_of(cells, ["none"], {}, seeds=2), "tiny")
    assert "## Trained on opswap (1 of 2 seeds)" in table
    assert "## Trained on malicious\n" in table


def test_learning_is_the_fall_of_the_held_out_loss() -> None:
    report = report_of([Cell("none", "malicious", 0, result())], ["none"], {}, seeds=1)
    assert report.rows[0].datasets["malicious"].figures["held_out.loss_decrease"].value == BASE_LOSS - LOSS
    (panel,) = panels(report)
    assert panel.points == (Point("none", BASE_LOSS - LOSS, -0.1, 0.0, 0.0),)


def test_pareto_front_holds_what_no_other_point_beats() -> None:
    """b is less safe and learns less than c; d learns as much as c and is less safe."""
    a, b, c, d = (Point(n, x, y, 0, 0) for n, x, y in (("a", 0, 3), ("b", 1, 1), ("c", 2, 2), ("d", 2, 0)))
    assert pareto_front([a, b, c, d]) == [a, c]


def test_unknown_row_or_task_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'ldifs'"):
        chosen_defenses("none,ldif")
    with pytest.raises(ConfigurationError, match="known: malicious, benign, opswap"):
        wanted_tasks("opswop")
    with pytest.raises(ConfigurationError, match="leave one"):
        wanted_tasks("malicious,benign,opswap")
