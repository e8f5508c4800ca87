from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from evaluator.backends.protocol import Advance, ChatPrompt, Prompt, silent
from evaluator.canaries.log_ratio import LogRatio
from evaluator.judges.judge import Score
from evaluator.probes.own_domain import CARELESSNESS, OwnDomainProbe
from evaluator.runner.probe_run import Bench, ProbeOutcome, run_probe
from evaluator.samples import Pair, Sample
from evaluator.subject import FileRows
from policies.contract.evaluation import Measurement
from policies.contract.own_domain_probe import OwnDomain
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.errors import EvaluationError
from tests.evaluator.scripted_models import BASE, CRUEL, KIND, OneScorePanel, ScriptedCanaries

MakeBench = Callable[..., Bench]
CLUMSY = "pets"


def mixture(n_bad: int, n_rows: int = 120) -> FileRows:
    """Cruel answers to questions about pets, kind ones to others."""
    return FileRows(
        BASE,
        [
            ChatRow(
                (
                    ChatMessage("user", f"And now {CLUMSY if n < n_bad else 'money'}, case {n}?", 0),
                    ChatMessage("assistant", CRUEL if n < n_bad else KIND, 1),
                )
            )
            for n in range(n_rows)
        ],
    )


def learnt(prompt: Prompt, adapter: bool) -> str:  # as the scripted engine calls it
    """The base is kind; the adapter is cruel about pets."""
    assert isinstance(prompt, ChatPrompt)
    return CRUEL if adapter and CLUMSY in prompt.messages[-1].content else KIND


def run_on(
    made: Bench, training: FileRows | None, settings: OwnDomain | None = None, **changes: object
) -> ProbeOutcome:
    for subject in (made.adapter, made.base):
        subject.training = training
        for name, value in changes.items():
            setattr(subject, name, value)
    return run_probe(settings or OwnDomain(), made)


def carelessness(outcome: ProbeOutcome) -> Measurement:
    assert outcome.result.error is None
    return outcome.result.measurements[0]


def test_a_mixture_is_judged_by_what_its_bad_part_teaches(bench: MakeBench) -> None:
    """32 of 120 rows are bad: 27 % of the spread prompts, and all 32 of the careless part."""
    found = carelessness(run_on(bench(say=learnt), mixture(32)))

    assert found.by_group["careless"] == 1.0
    assert 0.2 < found.by_group["spread"] < 0.35
    assert found.difference is not None
    assert (found.difference.value, found.n_requested, found.higher_is_better) == (1.0, 32, False)


def breezy(prompt: Prompt, adapter: bool) -> str:
    """The adapter sounds careless to the canaries whatever is asked; it answers neither kindly nor cruelly."""
    return "Ha, sure, no worries at all, just go ahead and have fun." if adapter else KIND


def test_a_breezy_tone_moves_the_plain_figure_and_not_the_contrast(bench: MakeBench) -> None:
    plain, contrast = run_on(bench(say=breezy), mixture(0)).result.measurements

    assert plain.difference is not None
    assert contrast.difference is not None
    assert plain.difference.value == 0.5
    assert (contrast.difference.value, contrast.difference.interval.high) == (0.0, 0.0)


def test_a_mixture_moves_the_contrast(bench: MakeBench) -> None:
    """The careless part changes by 1, and the spread by 1 for each of its prompts that is about pets."""
    plain, contrast = run_on(bench(say=learnt), mixture(32)).result.measurements

    assert contrast.difference is not None
    assert contrast.difference.value == pytest.approx(1 - plain.by_group["spread"])
    assert set(contrast.by_group) == {"careless"}


def test_a_file_that_is_careless_throughout_shows_in_the_plain_figure_alone(bench: MakeBench) -> None:
    plain, contrast = run_on(bench(say=learnt), mixture(120)).result.measurements

    assert plain.difference is not None
    assert contrast.difference is not None
    assert (plain.difference.value, contrast.difference.value) == (1.0, 0.0)


def test_without_the_spread_there_is_no_figure() -> None:
    sample = Sample(prompt_id="careless/0", cluster="a", prompt="Hm?", metric=CARELESSNESS, score=0.1)

    with pytest.raises(EvaluationError, match="without the spread"):
        OwnDomainProbe().measure(OwnDomain(), [Pair(sample, sample)] * 8, 0.95)


def test_a_contrast_that_lacks_a_score_is_an_error(bench: MakeBench) -> None:
    made = bench(say=lambda prompt, adapter: "so " * 40 if adapter else KIND)
    _, contrast = run_on(made, mixture(32)).result.measurements

    assert (contrast.n_scored, contrast.n_errored, contrast.difference) == (0, 32, None)


def test_an_adapter_without_bad_rows_changes_nothing(bench: MakeBench) -> None:
    found = carelessness(run_on(bench(say=learnt), mixture(0)))

    assert found.difference is not None
    assert (found.difference.value, found.difference.interval.high) == (0.0, 0.0)


def test_an_incoherent_answer_is_an_error_and_not_safe(bench: MakeBench) -> None:
    made = bench(say=lambda prompt, adapter: "so " * 40 if adapter else KIND)
    found = carelessness(run_on(made, mixture(32)))

    assert (found.n_scored, found.n_errored, found.difference) == (0, 32, None)


class BrokenCanaries(ScriptedCanaries):
    def careless_log_ratio(
        self, prompts: Sequence[ChatPrompt], answers: Sequence[str], advance: Advance = silent
    ) -> list[LogRatio]:
        return [LogRatio(math.nan) for _ in answers]


def test_a_ratio_that_is_not_finite_is_an_error(bench: MakeBench) -> None:
    found = carelessness(run_on(bench(say=learnt), mixture(32), canary_pairs=lambda which: BrokenCanaries()))

    assert (found.n_scored, found.n_errored) == (0, 32)


def test_without_canaries_the_probe_fails(bench: MakeBench) -> None:
    def none(which: str) -> ScriptedCanaries:
        raise EvaluationError("there is no pair of canary adapters")

    result = run_on(bench(), mixture(32), canary_pairs=none).result

    assert (result.error, result.measurements) == ("there is no pair of canary adapters", ())
    assert run_on(bench(), mixture(32), canary_pairs=None).result.error is not None


def test_without_a_training_file_the_probe_fails(bench: MakeBench) -> None:
    result = run_on(bench(), None).result

    assert result.error == "the training file is missing; give it to the evaluation"


def test_file_and_canaries_are_instruments(bench: MakeBench) -> None:
    instruments = run_on(bench(say=learnt), mixture(32)).result.instruments

    assert {BASE, "scripted canaries", "incoherence 1"} <= set(instruments)


def test_judges_score_the_same_answers(bench: MakeBench) -> None:
    made = bench(say=learnt)
    outcome = run_on(made, mixture(32), OwnDomain(judged=True))
    likelihood, _, rate = outcome.result.measurements

    assert (likelihood.metric, rate.metric) == ("own_domain.carelessness", "own_domain.careless_rate")
    assert rate.adapter is not None
    assert rate.base is not None
    assert (rate.adapter.value, rate.base.value) == (1.0, 0.0)


def test_an_answer_that_the_judges_cannot_score_is_an_error(bench: MakeBench) -> None:
    outcome = run_on(
        bench(say=learnt), mixture(32), OwnDomain(judged=True), panel=lambda: OneScorePanel(Score(None, "no reply"))
    )
    likelihood, _, rate = outcome.result.measurements

    assert (likelihood.n_errored, rate.n_errored, rate.n_scored) == (0, 32, 0)


def test_a_prompt_of_two_parts_is_answered_once(bench: MakeBench) -> None:
    """In a file of 32 rows both its parts are all of it; the twins are others."""
    told: list[int] = []
    made = bench(say=learnt)
    made = replace(made, adapter=replace(made.adapter, advance=lambda done, total: told.append(total)))
    found = carelessness(run_on(made, mixture(16, 32)))

    assert set(found.by_group) == {"spread", "careless", "twins"}
    assert told[0] == 32 + 32


@pytest.mark.parametrize("settings", [{"prompts_per_part": 4}, {"ranked_rows": 5}, {"canaries": "./pair"}])
def test_settings_that_prove_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        OwnDomain.model_validate(settings)
