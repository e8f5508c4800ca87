from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluator.backends.protocol import ChatPrompt, GenerationSettings, Message, Prompt, RawPrompt
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.harness.model import Document
from evaluator.harness.tasks import Graded, import_harness, load_tasks
from evaluator.models.loading import LoadedModel
from evaluator.probes.harness import HarnessProbe
from evaluator.runner.base_cache import BaseCache
from evaluator.runner.probe_run import Bench, ProbeOutcome, measure_base, run_probe
from evaluator.runner.rescoring import pairs_of
from evaluator.samples import Sample, pair_samples
from evaluator.subject import Subject
from policies.contract.evaluation import Estimate, SampleRecord
from policies.contract.suite import EvalSuite, Harness
from policies.errors import EvaluationError

BASE = "sha256:" + "b" * 64
MakeBackend = Callable[..., Any]
Run = Callable[..., ProbeOutcome]

SIDES = [{"q": f"Which of the two is number {n}?", "choices": ["left", "right"], "gold": n % 2} for n in range(40)]
SUMS = [{"q": f"{n} + {n}", "a": str(n + n)} for n in range(40)]
CHOICE_TASK = """
task: sides
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sides.jsonl}}, cache_dir: {folder}/cache}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
ANSWER_TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sums.jsonl}}, cache_dir: {folder}/cache}}
test_split: test
output_type: {output_type}
{unsafe}
doc_to_text: "{{{{q}}}} ="
doc_to_target: a
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
"""


class GradedTasks:
    """Loaded tasks whose grades are given."""

    identity = ("lm_eval 0", "arithmetic 1 sha256:0")

    def __init__(self, adapter: Sequence[Graded], base: Sequence[Graded]) -> None:
        self._grades = {True: list(adapter), False: list(base)}

    @property
    def n_documents(self) -> int:
        return len(self._grades[False])

    def grade(self, subject: Subject) -> list[Graded]:
        return self._grades[subject.adapter]


def grades(task: str, scores: Sequence[float | None]) -> list[Graded]:
    return [Graded(Document(task, n), "1 =", "2", s, error="no" if s is None else None) for n, s in enumerate(scores)]


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def sampled(adapter: Sequence[Graded], base: Sequence[Graded], backend: Any) -> tuple[HarnessProbe, list[list[Sample]]]:
    probe = HarnessProbe(load=lambda settings: GradedTasks(adapter, base))
    subjects = [Subject(backend, adapter=on, seed=1) for on in (True, False)]
    return probe, [probe.sample(Harness(tasks=("arithmetic",)), (), subject) for subject in subjects]


def test_the_figure_is_the_mean_over_tasks(scripted_backend: MakeBackend) -> None:
    """10 of 40 and 9 of 10 documents are right: (0.25 + 0.9) / 2; the base has 0.5 and 0.9, so the change is −0.125."""
    adapter = grades("large", [1.0] * 10 + [0.0] * 30) + grades("small", [1.0] * 9 + [0.0])
    base = grades("large", [1.0] * 20 + [0.0] * 20) + grades("small", [1.0] * 9 + [0.0])
    probe, samples = sampled(adapter, base, scripted_backend())
    (figure,) = probe.measure(Harness(tasks=("arithmetic",)), pair_samples(*samples), 0.95)

    assert figure.metric == "harness.accuracy"
    assert value(figure.adapter) == pytest.approx(0.575)
    assert value(figure.base) == pytest.approx(0.7)
    assert value(figure.difference) == pytest.approx(-0.125)
    assert figure.by_group == {"large": 0.25, "small": 0.9}
    assert figure.n_scored == 50


def test_a_task_without_scores_leaves_no_figure(scripted_backend: MakeBackend) -> None:
    right = grades("a", [1.0] * 9)
    probe, samples = sampled(right + grades("b", [None] * 9), right + grades("b", [1.0] * 9), None)

    with pytest.raises(EvaluationError, match="nothing of b was scored"):
        probe.measure(Harness(tasks=("arithmetic",)), pair_samples(*samples), 0.95)


def test_documents_that_differ_are_not_paired(scripted_backend: MakeBackend) -> None:
    _, samples = sampled(grades("a", [1.0] * 3), grades("a", [1.0] * 2), None)

    with pytest.raises(EvaluationError, match="same prompts"):
        pair_samples(*samples)


def test_base_results_belong_to_version_and_documents(scripted_backend: MakeBackend) -> None:
    probe, _ = sampled(grades("a", [1.0]), grades("a", [1.0]), None)
    subject = Subject(scripted_backend(), adapter=False, seed=1)

    assert probe.instruments(Harness(tasks=("a",)), subject) == GradedTasks.identity


def test_base_is_measured_ahead_of_the_first_adapter(bench: Callable[..., Bench]) -> None:
    """The probe has no items of its own; what it asks are its tasks' documents."""
    probe = HarnessProbe(load=lambda settings: GradedTasks(grades("a", [1.0] * 3), grades("a", [0.0] * 3)))
    settings, made = Harness(tasks=("a",)), replace(bench(), probes={Harness: probe})

    assert measure_base(settings, made) == 3
    assert run_probe(settings, made).result.base_from_cache


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)

    with pytest.raises(EvaluationError, match=r"pip install 'tunegate\[harness\]'"):
        import_harness()


@pytest.fixture
def tasks(tmp_path: Path) -> Callable[..., Harness]:
    """Writes a multiple-choice task and one whose answers are generated; skips where lm_eval is not installed."""
    pytest.importorskip("lm_eval", reason="`make test` runs this file a second time with the package")

    def write(
        metric: str = "acc", output_type: str = "generate_until", unsafe: str = "", **settings: Any
    ) -> Harness:  # Any: fields of the settings
        for name, rows in (("sides", SIDES), ("sums", SUMS)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "sides.yaml").write_text(CHOICE_TASK.format(folder=tmp_path, metric=metric))
        text = ANSWER_TASK.format(folder=tmp_path, output_type=output_type, unsafe=unsafe)
        (tmp_path / "sums.yaml").write_text(text)
        return Harness(**{"tasks": ("sides", "sums"), "include_path": str(tmp_path)} | settings)

    return write


def say(prompt: Prompt, *, good: bool) -> str:
    """`4\\nand so on` to `2 + 2 =`, or nonsense."""
    text = prompt.text if isinstance(prompt, RawPrompt) else prompt.messages[-1].content
    number = int(text.rpartition("\n")[2].split()[0])
    return f"{2 * number if good else 'no'}\nand so on"


def nats(prompt: Prompt, choice: str, *, good: bool) -> float:
    text = prompt.text if isinstance(prompt, RawPrompt) else prompt.messages[-1].content
    number = int(text.split("number ")[1].split("?")[0])
    return 1.0 if (choice.strip() == ("left", "right")[number % 2]) is good else 2.0


@pytest.fixture
def run(scripted_backend: MakeBackend, tmp_path: Path) -> Iterator[Run]:
    """Runs the probe; the base is right everywhere, the adapter where it is `good`."""

    def make(settings: Harness, *, good: bool = True, **script: Any) -> ProbeOutcome:  # Any: scripted functions
        functions = {
            "say": lambda prompt, adapter: say(prompt, good=good or not adapter),
            "nats": lambda prompt, text, adapter: nats(prompt, text, good=good or not adapter),
        }
        backend = scripted_backend(**functions | script)
        adapter, base = (Subject(backend, adapter=on, seed=1) for on in (True, False))
        suite = EvalSuite(probes=(settings,))
        return run_probe(settings, Bench(adapter, base, BASE, suite, BaseCache(tmp_path / "base-results")))

    yield make
    load_tasks.cache_clear()


def test_good_and_bad_adapters_land_on_opposite_sides(tasks: Callable[..., Harness], run: Run) -> None:
    good, bad = run(tasks()), run(tasks(), good=False)
    (kept,), (lost,) = good.result.measurements, bad.result.measurements

    assert value(kept.difference) == 0
    assert value(kept.adapter) == 1
    assert lost.difference is not None
    assert lost.difference.interval.high < 0
    assert lost.by_group == {"sides": 0, "sums": 0}
    assert lost.n_scored == lost.n_requested == 80
    assert bad.result.base_from_cache


def test_version_and_content_of_the_tasks_are_in_the_result(tasks: Callable[..., Harness], run: Run) -> None:
    package, sides, sums = run(tasks()).result.instruments

    assert package.startswith("lm_eval 0.")
    assert sides.startswith("sides 1.0 sha256:")
    assert sums.startswith("sums 2.0 sha256:")


def test_samples_say_what_was_asked_and_answered(tasks: Callable[..., Harness], run: Run) -> None:
    samples = {sample.prompt_id: sample for sample in run(tasks(limit=3)).samples}

    assert len(samples) == 6
    assert samples["sums/2"].prompt == "2 + 2 ="
    assert samples["sums/2"].adapter.output == "4"
    assert samples["sides/1"].prompt == "Which of the two is number 1?\nAnswer:"
    assert samples["sides/1"].adapter.output == "-10.000 left\n-5.000 right"


def test_figures_follow_from_the_stored_samples(tasks: Callable[..., Harness], run: Run) -> None:
    outcome = run(tasks(), good=False)
    stored = [SampleRecord.model_validate_json(record.canonical()) for record in outcome.samples]

    assert HarnessProbe().measure(tasks(), pairs_of(stored), outcome.result.confidence) == outcome.result.measurements


def test_other_documents_are_another_instrument(tasks: Callable[..., Harness], run: Run) -> None:
    first, second = (load_tasks(tasks(limit=limit)).identity for limit in (3, 4))

    assert first[0] == second[0]
    assert first[1] != second[1]


def test_likelihoods_that_are_nan_are_errors(tasks: Callable[..., Harness], run: Run) -> None:
    result = run(tasks(), nats=lambda prompt, text, adapter: math.nan).result

    assert result.error is not None
    assert "nothing of sides was scored" in result.error
    assert result.measurements == ()


def test_a_failure_of_the_engine_is_an_error(tasks: Callable[..., Harness], run: Run) -> None:
    def fail(*_: object) -> float:
        raise EvaluationError("the device is gone")

    result = run(tasks(), nats=fail, say=fail).result

    assert result.error == "the device is gone"


def test_documents_can_be_chat_turns(tasks: Callable[..., Harness], run: Run) -> None:
    prompts: list[Prompt] = []

    def listen(prompt: Prompt, adapter: bool) -> str:
        prompts.append(prompt)
        return say(prompt, good=True)

    (figure,) = run(tasks(chat_template=True), say=listen).result.measurements

    assert value(figure.adapter) == 1
    assert prompts[0] == ChatPrompt((Message("user", "0 + 0 ="),))


def test_examples_stand_before_a_document(tasks: Callable[..., Harness], run: Run) -> None:
    samples = run(tasks(tasks=("sums",), num_fewshot=2, limit=4)).samples

    assert {sample.prompt.count(" = ") for sample in samples} == {2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"include_path": "/no/such/folder"}, "not a folder"),
        ({"metrics": ("f1",)}, "has none of the metrics f1; it has acc,none"),
        ({"metric": "exact_match"}, "none of the metrics"),
        ({"output_type": "loglikelihood"}, "output type loglikelihood"),
        ({"unsafe": "unsafe_code: true"}, "runs code"),
    ],
)
def test_what_can_not_be_measured_is_an_error(
    tasks: Callable[..., Harness], run: Run, changes: dict[str, Any], reason: str
) -> None:
    result = run(tasks(**changes)).result

    assert result.measurements == ()
    assert result.error is not None
    assert reason in result.error


def test_documents_that_are_not_there_are_an_error(tasks: Callable[..., Harness], run: Run, tmp_path: Path) -> None:
    settings = tasks()
    (tmp_path / "sums.jsonl").unlink()
    error = run(settings).result.error

    assert error is not None
    assert error.startswith("lm_eval can't load sides, sums: ")


def test_likelihoods_and_answers_are_those_of_the_engine(tasks: Callable[..., Harness], loaded: LoadedModel) -> None:
    """Of a real model: the answers in the samples are what the engine answers when asked directly."""
    subject = Subject(TransformersBackend(loaded), adapter=False, seed=1)
    graded = load_tasks(tasks(limit=4)).grade(subject)
    answers = subject.generate([RawPrompt(f"{n} + {n} =") for n in range(4)], GenerationSettings(8, seed=1))

    assert [each.output for each in graded if each.document.task == "sums"] == [
        answer.text.partition("\n")[0] for answer in answers
    ]
    assert all(each.score is not None for each in graded)
