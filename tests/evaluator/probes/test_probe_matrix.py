"""One matrix for all probes: a safe and an unsafe model land on opposite sides, and nothing missing counts as safe."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from evaluator.judges.judge import Answer, PanelScores
from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.prompt_sets import BUILTIN
from evaluator.runner.probe_run import Bench, ProbeOutcome, run_probe
from evaluator.runner.registry import PROBES, AnyProbe
from evaluator.runner.rescoring import rescore_report
from evaluator.samples import Sample
from evaluator.subject import Subject
from policies.contract.artifacts import Record, digest_bytes
from policies.contract.evaluation import AdapterProof, EvalReport
from policies.contract.judges import LocalModelJudge, Panel
from policies.contract.merkle import jsonl_lines, merkle_root
from policies.contract.metrics import METRICS, metric_named
from policies.contract.probe_record import PromptedProbe
from policies.contract.sequential import Sequential
from policies.contract.suite import EmergentMisalignment, EvalSuite, Harness, ProbeSettings, Toxicity
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule
from policies.errors import EvaluationError
from tests.evaluator.scripted_models import BASE, ScriptedPanel, first

PANEL = Panel(judges=(LocalModelJudge(uri="package://judge"),))
ALL = tuple(settings_type.model_validate({}) for settings_type in PROBES if settings_type is not Harness)
"""Without `harness`, which needs a package and tasks; its own tests have the scenarios of this matrix."""

JUDGED = (EmergentMisalignment(), *(s.model_copy(update={"judged": True}) for s in ALL if hasattr(s, "judged")))


NO_PROMPT_SET = {"harness", "in_domain", "own_domain"}
"""Probes that ask tasks or the training file."""
JUDGED_AND_NOT = (*ALL, *JUDGED[1:])


def test_every_probe_of_the_contract_is_in_the_table() -> None:
    assert {probe.name for probe in PROBES.values()} == set(METRICS) == set(BUILTIN) | NO_PROMPT_SET
    assert all(settings.model_dump()["probe"] == PROBES[type(settings)].name for settings in ALL)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.probe)
def test_safe_and_unsafe_models_land_on_opposite_sides(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    safe, unsafe = first(run_probe(settings, bench())), first(run_probe(settings, bench(unsafe=True)))
    assert safe.difference is not None
    assert unsafe.difference is not None
    sign = 1 if safe.higher_is_better else -1

    assert sign * unsafe.difference.interval.high < 0
    assert safe.difference.value == 0
    assert safe.n_scored == safe.n_requested > 30


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.probe)
def test_no_samples_is_an_error(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    made = bench()
    assert made.store is not None
    empty = settings.model_copy(update={"prompts": made.store.put_bytes(b"")})
    result = run_probe(empty, made).result

    assert result.error is not None
    assert result.measurements == ()


def forgetful(probe: AnyProbe) -> AnyProbe:
    """The probe, but for the last sample of either model."""

    class Forgetful(type(probe)):  # type: ignore[misc]  # a class that is known when it runs
        def sample(self, settings: ProbeSettings, items: Sequence[PromptItem], subject: Subject) -> list[Sample]:
            return list(probe.sample(settings, items, subject))[:-1]

    return Forgetful()


@pytest.mark.parametrize("settings", JUDGED_AND_NOT, ids=lambda s: s.probe)
def test_a_sample_that_neither_model_gave_is_an_error_and_no_figure(
    settings: ProbeSettings, bench: Callable[..., Bench]
) -> None:
    """Adapter and base would pair; the base's samples are not remembered either."""
    made = bench()
    result = run_probe(settings, replace(made, probes={type(settings): forgetful(PROBES[type(settings)])})).result

    assert result.error is not None
    assert re.fullmatch(rf"{settings.probe} gave \d+ samples of the \d+ that its prompts ask", result.error)
    assert result.measurements == ()
    assert run_probe(settings, made).result.error is None


@pytest.mark.parametrize("settings", [s for s in ALL if s.divides_into_looks], ids=lambda s: s.probe)
@pytest.mark.parametrize("changes", [{}, {"samples_per_question": 1}, {"variants": ("plain", "json", "json")}])
def test_a_look_asks_as_many_answers_as_the_policy_says(
    settings: ProbeSettings, changes: dict[str, Any], bench: Callable[..., Bench]
) -> None:
    """The rule allows anything, so a probe ends at the first look that has a figure; without a rule at the last."""
    settings = type(settings).model_validate(
        settings.model_dump() | {k: v for k, v in changes.items() if hasattr(settings, k)}
    )
    looks = (0.3, 1.0)
    suite = EvalSuite(probes=(settings,), sequential=Sequential(looks=looks), panel=PANEL)
    for rules in (None, generous(settings, suite)):
        result = run_probe(settings, replace(bench(), suite=suite, policy=rules)).result
        said = {m.metric: settings.answers_by(looks[result.look], m.metric) for m in result.measurements}

        assert result.look == (1 if rules is None else 0)
        assert {m.metric: m.n_requested for m in result.measurements if said[m.metric] is not None} == {
            metric: n for metric, n in said.items() if n is not None
        }
        assert any(said.values()) or not isinstance(settings, PromptedProbe)


def generous(settings: ProbeSettings, suite: EvalSuite) -> ReleasePolicy:
    """A policy whose one rule, on the probe's first metric, allows nearly anything."""
    name, metric = next(iter(METRICS[settings.probe].items()))
    change = "max_drop_from_base" if metric.higher_is_better else "max_increase_over_base"
    bound = {"min" if metric.higher_is_better else "max": 0 if metric.higher_is_better else 0.9}
    rule = Rule.model_validate({"id": "rule", "metric": name, **(bound if metric.is_share else {change: 0.9})})
    return ReleasePolicy(
        api_version="tunegate/v1",
        kind="ReleasePolicy",
        metadata=Metadata(name="matrix", version="1"),
        spec=ReleaseSpec(suite=suite, rules=(rule,)),
    )


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
        for measurement in outcome.result.measurements:
            assert measurement.n_scored == 0
            assert measurement.n_errored == measurement.n_requested
            assert measurement.adapter is None
            assert measurement.difference is None


class UncalibratedPanel(ScriptedPanel):
    def score(self, rubric: str, answers: Sequence[Answer], advance: object = None) -> PanelScores:
        raise EvaluationError("judge_uncalibrated: it knows nothing")


@pytest.mark.parametrize("settings", JUDGED, ids=lambda s: s.probe)
def test_a_judged_probe_has_no_figure_without_calibrated_judges(
    settings: ProbeSettings, bench: Callable[..., Bench]
) -> None:
    made = bench()
    made = replace(
        made, **{name: replace(getattr(made, name), panel=UncalibratedPanel) for name in ("adapter", "base")}
    )
    result = run_probe(settings, made).result

    assert (result.error, result.measurements) == ("judge_uncalibrated: it knows nothing", ())


@pytest.mark.parametrize("settings", JUDGED, ids=lambda s: s.probe)
def test_the_judges_of_a_judged_probe_are_its_instruments(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    assert ScriptedPanel.identity in run_probe(settings, bench()).result.instruments


def test_settings_records_are_the_keys_of_the_table() -> None:
    assert all(issubclass(settings_type, Record) for settings_type in PROBES)


@pytest.mark.parametrize("sequential", [None, Sequential()], ids=["one look", "four looks"])
@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.probe)
def test_report_comes_again_from_its_stored_samples(
    settings: ProbeSettings, sequential: Sequential | None, bench: Callable[..., Bench]
) -> None:
    suite = EvalSuite(probes=(settings,), sequential=sequential, panel=PANEL)
    outcome = run_probe(settings, replace(bench(unsafe=True), suite=suite))
    metric = outcome.result.measurements[0].metric
    bound = "max_drop_from_base" if metric_named(metric).higher_is_better else "max_increase_over_base"
    rule = Rule.model_validate({"id": "rule", "metric": metric, bound: 0.5})
    policy = ReleasePolicy(
        api_version="tunegate/v1",
        kind="ReleasePolicy",
        metadata=Metadata(name="matrix", version="1"),
        spec=ReleaseSpec(suite=suite, rules=(rule,)),
    )
    samples = b"".join(record.canonical() + b"\n" for record in outcome.samples)
    report = report_of(outcome, policy, samples)

    assert rescore_report(report, policy, samples) == report


def report_of(outcome: ProbeOutcome, policy: ReleasePolicy, samples: bytes) -> EvalReport:
    return EvalReport(
        spec=None,
        policy=policy.digest,
        adapter=BASE,
        base_model=BASE,
        suite=policy.spec.suite.digest,
        confidence=policy.spec.suite.confidence,
        proof=AdapterProof(
            adapter=BASE, base_model=BASE, n_prompts=1, max_abs_logit_difference=1.0, n_adapted_modules=1, loaded=True
        ),
        probes=(outcome.result,),
        samples=digest_bytes(samples),
        samples_root=merkle_root(jsonl_lines(samples)),
        dtype="float32",
        engine="transformers",
        versions={},
        seconds=1,
    )
