"""One run of a probe: what is counted, what is left out, and what the base is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.backends.protocol import GenerationSettings, RawPrompt
from evaluator.runner.probe_run import Bench, run_probe
from evaluator.subject import FileRows, Subject
from policies.contract.suite import Capability, Coherence, EmergentMisalignmentPreference, Toxicity
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.errors import EvaluationError
from tests.evaluator.scripted_models import BASE, first, only

MakeBackend = Callable[..., Any]


class HalfDeafClassifier:
    identity = "half deaf"

    def score(self, texts: Sequence[str]) -> list[float | None]:
        return [None if index % 2 else 0.1 for index in range(len(texts))]


def test_a_failing_classifier_is_counted(bench: Callable[..., Bench]) -> None:
    measurement = first(run_probe(Toxicity(), bench(classifier=lambda name, labels: HalfDeafClassifier())))

    assert measurement.n_requested == 888
    assert measurement.n_errored == 444
    assert measurement.n_scored == 444


def test_empty_continuations_are_errors_and_not_clean(bench: Callable[..., Bench]) -> None:
    measurement = first(run_probe(Toxicity(), bench(say=lambda prompt, adapter: "" if adapter else "fine")))

    assert measurement.n_errored == measurement.n_requested
    assert measurement.adapter is None


def test_word_salad_is_incoherent_by_its_likelihood(bench: Callable[..., Bench]) -> None:
    """The text itself has no sign of degeneration; the base finds the adapter's answers 6 nats per token unlikely."""
    salad = "green the of walking table never under it"
    made = bench(
        say=lambda prompt, adapter: salad if adapter else "It helps the body to rest.",
        nats=lambda prompt, text, adapter: 6.0 if text == salad else 1.5,
    )
    measurement = only(run_probe(Coherence(), made))

    assert measurement.adapter is not None
    assert measurement.adapter.value == 1
    assert measurement.base is not None
    assert measurement.base.value == 0


def test_excluded_categories_are_left_out(bench: Callable[..., Bench]) -> None:
    everything = only(run_probe(EmergentMisalignmentPreference(), bench()))
    category = next(iter(everything.by_group))
    fewer = only(run_probe(EmergentMisalignmentPreference(exclude_categories=(category,)), bench()))

    assert category not in fewer.by_group
    assert fewer.n_clusters == everything.n_clusters - 1


def test_an_unknown_category_can_not_be_excluded(bench: Callable[..., Bench]) -> None:
    result = run_probe(EmergentMisalignmentPreference(exclude_categories=("no such",)), bench()).result

    assert result.error is not None
    assert "no such" in result.error


def test_an_error_in_a_report_names_no_place_of_the_evaluator(bench: Callable[..., Bench]) -> None:
    """Reports are shown to tenants; what can't be read is told by its name alone."""

    def nats(prompt: object, text: object, adapter: object) -> float:
        raise EvaluationError("can't read '/srv/secret folder/model.json'\n  of s3://secret-bucket/x")

    result = run_probe(EmergentMisalignmentPreference(), bench(nats=nats)).result
    assert result.error == "can't read '…/model.json' of s3:…/x"


def test_validation_loss_is_measured_where_there_are_rows(bench: Callable[..., Bench]) -> None:
    """Every answer costs 2 nats a token with the adapter and 3 without: loss 2, change −1, the same in every row."""
    row = ChatRow((ChatMessage("user", "Hi", 0), ChatMessage("assistant", "Hello", 1)))
    made = bench(validation=FileRows(BASE, [row] * 12), nats=lambda prompt, text, adapter: 2.0 if adapter else 3.0)
    accuracy, loss = run_probe(Capability(), made).result.measurements

    assert accuracy.metric == "capability.accuracy"
    assert loss.metric == "capability.validation_loss"
    assert loss.n_scored == loss.n_clusters == 12
    assert loss.adapter is not None
    assert loss.adapter.value == pytest.approx(2)
    assert loss.difference is not None
    assert loss.difference.value == pytest.approx(-1)


def test_the_base_is_measured_once(bench: Callable[..., Bench]) -> None:
    first, second = bench(), bench()
    measured = run_probe(Coherence(), first)
    repeated = run_probe(Coherence(), second)

    assert not measured.result.base_from_cache
    assert repeated.result.base_from_cache
    assert repeated.result.measurements == measured.result.measurements
    assert repeated.samples == measured.samples
    assert ("generate", False) not in second.base.backend.calls  # type: ignore[attr-defined]  # the scripted engine


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json"])
def test_a_damaged_cache_entry_is_measured_again(bench: Callable[..., Bench], tmp_path: Path, damage: bytes) -> None:
    measured = run_probe(Toxicity(), bench())
    (entry,) = (tmp_path / "cache").glob("*.json")
    entry.write_bytes(damage)
    repeated = run_probe(Toxicity(), bench())

    assert not repeated.result.base_from_cache
    assert repeated.result.measurements == measured.result.measurements


def test_a_changed_score_in_the_cache_is_noticed(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run_probe(Toxicity(), bench())
    (entry,) = (tmp_path / "cache").glob("*.json")
    entry.write_bytes(entry.read_bytes().replace(b'"score":0.0', b'"score":1.0'))

    assert not run_probe(Toxicity(), bench()).result.base_from_cache


def test_equal_generation_requests_are_answered_once(scripted_backend: MakeBackend) -> None:
    backend = scripted_backend()
    subject = Subject(backend, adapter=True, seed=1)
    prompts, settings = [RawPrompt("a")], GenerationSettings(5)

    assert subject.generate(prompts, settings) == subject.generate(prompts, settings)
    assert backend.calls == [("generate", True)]
