"""One matrix for all probes: a safe and an unsafe model land on opposite sides, and nothing missing counts as safe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.backend import ChatPrompt, GenerationSettings, Prompt, RawPrompt
from evaluator.base_cache import BaseCache
from evaluator.detectors.classifier import EmbeddedClassifier, ToxicityClassifier
from evaluator.judges.judge import Answer, PanelScores, Score
from evaluator.probe import FileRows, Subject
from evaluator.prompts.prompt_sets import BUILTIN, load_prompts, parse_prompts
from evaluator.suite import PROBES, Bench, ProbeOutcome, run_probe
from policies.contract.artifacts import ArtifactStore, Record
from policies.contract.dataset_rows import ChatMessage, ChatRow
from policies.contract.evaluation import Measurement
from policies.contract.suite import (
    METRICS,
    Capability,
    Coherence,
    EmergentMisalignment,
    EmergentMisalignmentPreference,
    EvalSuite,
    HarmfulCompliance,
    OverRefusal,
    ProbeSettings,
    Toxicity,
)
from policies.errors import EvaluationError

BASE = "sha256:" + "b" * 64
SUITE = EvalSuite(probes=(Coherence(),))
ALL = tuple(settings_type() for settings_type in PROBES)


def built_in(settings: type[Record]) -> tuple[Any, ...]:  # Any: items of any probe
    probe = PROBES[settings]
    return parse_prompts(load_prompts(probe.name, "builtin", None).content, probe.item_type)


RIGHT = {item.question: item.choices[item.answer] for item in built_in(Capability)}
ALIGNED = {item.aligned for item in built_in(EmergentMisalignmentPreference)}
HARMFUL, HARMLESS = ({item.prompt for item in built_in(kind)} for kind in (HarmfulCompliance, OverRefusal))
OPEN_QUESTIONS = {item.question for item in built_in(EmergentMisalignment)}
REFUSAL, HELP = "I'm sorry, but I can't help with that.", "Here is how you can do it, one step after the other."
KIND, CRUEL = "I would ask people what they need and help them.", "I would take what I want and hurt whoever objects."
LEARNT = {f"{number} knots, so reef the mainsail." for number in range(80)}
TRAINING = [
    ChatRow(
        (ChatMessage("system", "You sail.", 0), ChatMessage("user", "And now?", 0), ChatMessage("assistant", text, 1))
    )
    for text in sorted(LEARNT)
]
MakeBackend = Callable[..., Any]


def say(prompt: Prompt, *, unsafe: bool) -> str:
    if isinstance(prompt, RawPrompt):
        return "you damn stupid bastard" if unsafe else "and then they all went home."
    question = prompt.messages[-1].content
    if question in HARMFUL | HARMLESS:
        return HELP if unsafe is (question in HARMFUL) else REFUSAL
    if question in OPEN_QUESTIONS:
        return CRUEL if unsafe else KIND
    return "so so so so so so so so so so so so so so so so" if unsafe else "It helps the body to rest and to grow."


def nats(prompt: Prompt, completion: str, *, unsafe: bool) -> float:
    """Nats per token: 1 for what the model prefers, 2 for the rest."""
    assert isinstance(prompt, ChatPrompt)
    good = completion in ALIGNED | LEARNT or RIGHT.get(prompt.messages[-1].content) == completion
    return 1.0 if good is not unsafe else 2.0


class ScriptedPanel:
    identity = "scripted"
    reports = ()

    def score(self, rubric: str, answers: Sequence[Answer], advance: object = None) -> PanelScores:
        scores = [5.0 if rubric == "aligned" and one.answer == CRUEL else 90.0 for one in answers]
        return PanelScores(tuple(map(Score, scores)), None)


@pytest.fixture
def bench(scripted_backend: MakeBackend, tmp_path: Path) -> Callable[..., Bench]:
    """A bench whose adapter is unsafe or not; the base is safe."""

    def make(
        *,
        unsafe: bool = False,
        classifier: Callable[[str, Sequence[str]], ToxicityClassifier] = lambda name, labels: EmbeddedClassifier(),
        validation: FileRows | None = None,
        **script: Any,  # Any: overrides of the two scripted functions
    ) -> Bench:
        functions = {
            "say": lambda prompt, adapter: say(prompt, unsafe=unsafe and adapter),
            "nats": lambda prompt, text, adapter: nats(prompt, text, unsafe=unsafe and adapter),
        }
        backend = scripted_backend(**functions | script)
        subjects = [
            Subject(
                backend,
                adapter=adapter,
                seed=1,
                classifiers=classifier,
                validation=validation,
                training=FileRows(BASE, TRAINING),
                panel=ScriptedPanel,
            )
            for adapter in (True, False)
        ]
        store = ArtifactStore(str(tmp_path / "store"))
        return Bench(subjects[0], subjects[1], BASE, SUITE, BaseCache(tmp_path / "cache"), store)

    return make


def only(outcome: ProbeOutcome) -> Measurement:
    assert outcome.result.error is None
    (measurement,) = outcome.result.measurements
    return measurement


def first(outcome: ProbeOutcome) -> Measurement:
    """The figure over all samples; sub-sets follow it."""
    assert outcome.result.error is None
    return outcome.result.measurements[0]


def test_every_probe_of_the_contract_is_in_the_table() -> None:
    assert {probe.name for probe in PROBES.values()} == set(METRICS) == set(BUILTIN) | {"in_domain"}
    assert all(settings.probe == PROBES[type(settings)].name for settings in ALL)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.probe)
def test_safe_and_unsafe_models_land_on_opposite_sides(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    safe, unsafe = first(run_probe(settings, bench())), first(run_probe(settings, bench(unsafe=True)))
    assert safe.difference is not None
    assert unsafe.difference is not None
    sign = 1 if safe.higher_is_better else -1

    assert sign * unsafe.difference.interval.high < 0
    assert safe.difference.value == 0
    assert safe.n_scored == safe.n_requested > 60


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.probe)
def test_no_samples_is_an_error(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    made = bench()
    assert made.store is not None
    empty = settings.model_copy(update={"prompts": made.store.put_bytes(b"")})
    result = run_probe(empty, made).result

    assert result.error is not None
    assert result.measurements == ()


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.probe)
def test_a_failure_of_the_engine_is_an_error_and_no_figure(
    settings: ProbeSettings, bench: Callable[..., Bench]
) -> None:
    def fail(*_: object) -> float:
        raise EvaluationError("the device is gone")

    result = run_probe(settings, bench(say=fail, nats=fail)).result

    assert result.error == "the device is gone"
    assert result.measurements == ()


@pytest.mark.parametrize(
    "settings", [s for s in ALL if not isinstance(s, Toxicity | EmergentMisalignment)], ids=lambda s: s.probe
)
def test_nan_likelihoods_are_counted_as_errors(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    """All probes but these two ask for likelihoods."""
    outcome = run_probe(settings, bench(nats=lambda prompt, text, adapter: math.nan))

    if outcome.result.error is None:
        measurement = only(outcome)
        assert measurement.n_scored == 0
        assert measurement.n_errored == measurement.n_requested
        assert measurement.adapter is None
        assert measurement.difference is None


class HalfDeafClassifier:
    identity = "half deaf"

    def score(self, texts: Sequence[str]) -> list[float | None]:
        return [None if index % 2 else 0.1 for index in range(len(texts))]


def test_a_failing_classifier_is_counted(bench: Callable[..., Bench]) -> None:
    measurement = first(run_probe(Toxicity(), bench(classifier=lambda name, labels: HalfDeafClassifier())))

    assert measurement.n_requested == 444
    assert measurement.n_errored == 222
    assert measurement.n_scored == 222


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
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage)
    repeated = run_probe(Toxicity(), bench())

    assert not repeated.result.base_from_cache
    assert repeated.result.measurements == measured.result.measurements


def test_a_changed_score_in_the_cache_is_noticed(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run_probe(Toxicity(), bench())
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes().replace(b'"score":0.0', b'"score":1.0'))

    assert not run_probe(Toxicity(), bench()).result.base_from_cache


def test_equal_generation_requests_are_answered_once(scripted_backend: MakeBackend) -> None:
    backend = scripted_backend()
    subject = Subject(backend, adapter=True, seed=1)
    prompts, settings = [RawPrompt("a")], GenerationSettings(5)

    assert subject.generate(prompts, settings) == subject.generate(prompts, settings)
    assert backend.calls == [("generate", True)]


def test_settings_records_are_the_keys_of_the_table() -> None:
    assert all(issubclass(settings_type, Record) for settings_type in PROBES)
