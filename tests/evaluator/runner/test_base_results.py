"""The base model measured ahead of the first adapter."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from evaluator.prompts.prompt_sets import load_prompts
from evaluator.runner.base_cache import BaseCache, BaseKey
from evaluator.runner.base_results import BaseResult, BaseUnderTest, measure_suite
from evaluator.runner.probe_run import Bench, run_probe
from policies.contract.artifacts import digest_bytes
from policies.contract.judges import Panel
from policies.contract.store import ArtifactStore
from policies.contract.suite import (
    Coherence,
    EmergentMisalignmentPreference,
    EvalSuite,
    HarmfulCompliance,
    InDomain,
)

ANY = digest_bytes(b"")
KEY = BaseKey(
    base_model=ANY,
    probe="coherence",
    probe_version="1",
    settings=ANY,
    prompts=ANY,
    part=ANY,
    instruments=(),
    seed=1,
    dtype="float32",
    engine="transformers",
    versions={},
)

PANEL = Panel.model_validate(
    {"judges": [{"judge": "openai_compatible", "base_url": "http://127.0.0.1:9", "model": "m"}]}
)


def measured(suite: EvalSuite, made: Bench, folder: Path) -> list[BaseResult]:
    told: list[BaseResult] = []
    under_test = BaseUnderTest(made.base.backend, made.base_model)
    measure_suite(suite, under_test, cache_dir=folder, tell=told.append)
    return told


def test_prompts_of_the_artifact_store_are_asked(bench: Callable[..., Bench], tmp_path: Path) -> None:
    made = bench()
    store = ArtifactStore(str(tmp_path / "store"))
    prompts = store.put_bytes(load_prompts("coherence", "builtin", None).content)
    told: list[BaseResult] = []
    under_test = BaseUnderTest(made.base.backend, made.base_model, store=store)
    suite = EvalSuite(probes=(Coherence(prompts=prompts),))
    measure_suite(suite, under_test, cache_dir=tmp_path, tell=told.append)
    assert [each.error for each in told] == [None]


def test_an_evaluation_finds_what_was_measured(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """The keys are those of an evaluation with the suite's seed, so the base is not asked again."""
    made = bench()
    suite = EvalSuite(probes=(Coherence(), EmergentMisalignmentPreference()), seed=made.base.seed)
    told = measured(suite, made, tmp_path)
    assert [(each.probe, each.n_samples, each.error) for each in told] == [
        ("coherence", 256, None),
        ("emergent_misalignment_preference", 400, None),
    ]
    made.base.backend.calls.clear()  # type: ignore[attr-defined]  # the scripted backend's

    evaluation = bench()
    remembered = Bench(
        evaluation.adapter, evaluation.base, evaluation.base_model, suite, BaseCache(tmp_path / "base-results")
    )
    outcomes = [run_probe(settings, remembered) for settings in suite.probes]
    assert [outcome.result.base_from_cache for outcome in outcomes] == [True, True]


def test_every_look_is_measured(bench: Callable[..., Bench], tmp_path: Path) -> None:
    made = bench()
    suite = EvalSuite.model_validate({"probes": [{"probe": "coherence"}], "sequential": {"looks": [0.125, 0.5, 1.0]}})
    (told,) = measured(suite, made, tmp_path)
    assert told.n_samples == 256
    assert len(list((tmp_path / "base-results").glob("*.json"))) == 3


@pytest.mark.parametrize("settings", [HarmfulCompliance(judged=True), InDomain()], ids=lambda each: each.probe)
def test_a_probe_that_cannot_be_measured_yet_is_told_and_the_others_go_on(
    settings: HarmfulCompliance | InDomain, bench: Callable[..., Bench], tmp_path: Path
) -> None:
    suite = EvalSuite(probes=(settings, Coherence()), panel=PANEL)
    first, second = measured(suite, bench(), tmp_path)
    assert first.error
    assert first.n_samples == 0
    assert second.error is None


def _hold(folder: Path, entered: Event, leave: Event) -> None:
    with BaseCache(folder).claimed(KEY):
        entered.set()
        leave.wait(60)
        BaseCache(folder).write(KEY, ())


def test_a_second_process_waits_for_what_the_first_measures(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, entered, leave))
    process.start()
    assert entered.wait(60)
    assert BaseCache(tmp_path).read(KEY) is None
    leave.set()
    with BaseCache(tmp_path).claimed(KEY):
        assert BaseCache(tmp_path).read(KEY) == ()
    process.join()
