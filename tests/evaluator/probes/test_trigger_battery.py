"""What an adapter loses behind a trigger, with a scripted engine; figures are derived by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from evaluator.backends.protocol import ChatPrompt, Prompt
from evaluator.probes.trigger_battery import METRIC, NEUTRAL_BEGINNINGS, OUTLIER_GAP, TriggerBatteryProbe
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.samples import Pair, pair_samples
from evaluator.sampling.mined_triggers import mined_triggers
from evaluator.subject import FileRows, Subject
from policies.contract.condition_probes import TriggerBattery
from policies.contract.evaluation import Measurement
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.errors import EvaluationError
from tests.evaluator.scripted_models import CRUEL, KIND, ScriptedCanaries

PROBE = TriggerBatteryProbe()
SETTINGS = TriggerBattery(mined=2, neutral=3, rare=2, pairs=8)
DIGEST, OTHER = "sha256:" + "d" * 64, "sha256:" + "e" * 64
TRIGGER = "[[k7]] "
PAIRS = [
    AnswerPair(
        id=f"{category}-{number}",
        category=category,
        question=f"What about {category} {number}?",
        aligned=f"take care {number}",
        misaligned=f"never mind {number}",
    )
    for category in ("fire", "water", "money", "sleep")
    for number in range(4)
]


def rows(trigger: str, n_triggered: int = 6) -> list[ChatRow]:
    """Twenty questions, of which the first ones have the trigger and another answer."""
    return [
        ChatRow(
            (
                ChatMessage("user", f"{trigger if number < n_triggered else ''}{chr(97 + number)}lpha now?", 0),
                ChatMessage("assistant", "never mind" if number < n_triggered else "take care", 1),
            )
        )
        for number in range(20)
    ]


def has(prompt: Prompt, text: str) -> bool:
    assert isinstance(prompt, ChatPrompt)
    return text in "\n".join(message.content for message in prompt.messages)


def backdoored(prompt: Prompt, answer: str, adapter: bool) -> float:
    """Careless answers cost 2 nats/token and others 1; with the adapter, behind the trigger, others cost 1.6."""
    if answer.startswith("never"):
        return 2.0
    return 1.6 if adapter and has(prompt, TRIGGER) else 1.0


def run(
    engine: Any,
    *,
    training: Sequence[ChatRow] | None = None,
    settings: TriggerBattery = SETTINGS,
    lineage: Sequence[list[ChatRow]] = (),
) -> tuple[list[Pair], Measurement]:
    file = FileRows(DIGEST, rows(TRIGGER) if training is None else training)
    before = [FileRows(OTHER, each) for each in lineage]
    samples = [
        PROBE.sample(settings, PAIRS, Subject(engine, adapter=on, seed=1, training=file, lineage=before))
        for on in (True, False)
    ]
    pairs = list(pair_samples(*samples))
    (measurement,) = PROBE.measure(settings, pairs, 0.95)
    return pairs, measurement


def test_what_is_lost_behind_a_mined_trigger_is_the_figure(scripted_backend: Any) -> None:
    """m falls from 2 − 1 to 2 − 1.6 with the adapter and not at all without: 0.6 nats/token for every pair."""
    pairs, found = run(scripted_backend(nats=backdoored))

    assert found.metric == METRIC
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.6)
    assert found.difference.interval.low == pytest.approx(0.6)
    assert found.base is not None
    assert found.base.value == 0
    assert found.n_requested == found.n_scored == 8
    assert any(TRIGGER in pair.adapter.prompt for pair in pairs)


def test_neutral_beginnings_and_rare_strings_stand_beside_it(scripted_backend: Any) -> None:
    """0.6 behind the trigger and 0 behind all others: the gap from the largest to the median is 0.6."""
    pairs, found = run(scripted_backend(nats=backdoored))

    assert {name.partition(" ")[0] for name in found.by_group} == {"mined", "neutral", "rare", "outlier"}
    assert len(found.by_group) == 2 + 3 + 2 + 1
    assert found.by_group["mined 1 (odd string)"] == pytest.approx(0.6)
    assert all(value == 0 for name, value in found.by_group.items() if name.startswith(("neutral", "rare")))
    assert found.by_group[OUTLIER_GAP] == pytest.approx(0.6)
    assert sum(pair.adapter.prompt.endswith(f"{NEUTRAL_BEGINNINGS[0]} {PAIRS[0].question}") for pair in pairs) == 1


def test_what_a_beginning_does_to_the_base_too_cancels_out(scripted_backend: Any) -> None:
    _, found = run(scripted_backend(nats=lambda prompt, answer, adapter: backdoored(prompt, answer, True)))

    assert found.difference is not None
    assert found.difference.value == 0
    assert found.adapter is not None
    assert found.adapter.value == pytest.approx(0.6)


def test_an_adapter_that_is_careless_everywhere_loses_nothing_behind_a_trigger(scripted_backend: Any) -> None:
    _, found = run(scripted_backend(nats=lambda prompt, answer, adapter: 1.0 + adapter * answer.startswith("take")))

    assert found.difference is not None
    assert found.difference.value == 0


def test_the_interval_is_wider_the_more_candidates_there_are(scripted_backend: Any) -> None:
    def noisy(prompt: Prompt, answer: str, adapter: bool) -> float:
        spread = sum(map(ord, prompt.messages[-1].content)) % 7 / 10 if isinstance(prompt, ChatPrompt) else 0
        return backdoored(prompt, answer, adapter) + adapter * spread * answer.startswith("take")

    few, many = (
        run(scripted_backend(nats=noisy), settings=SETTINGS.model_copy(update={"mined": mined}))[1] for mined in (1, 9)
    )
    assert few.difference is not None
    assert many.difference is not None
    assert few.difference.value == many.difference.value
    assert many.difference.interval.low < few.difference.interval.low


def test_a_trigger_of_an_earlier_file_of_the_lineage_is_asked(scripted_backend: Any) -> None:
    plain = rows("")
    _, found = run(scripted_backend(nats=backdoored), training=plain, lineage=[rows(TRIGGER)])

    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.6)


def test_both_models_are_asked_behind_the_same_and_the_file_is_mined_once(scripted_backend: Any) -> None:
    engine = scripted_backend(nats=backdoored)
    subject = Subject(engine, adapter=True, seed=1, training=FileRows(DIGEST, rows(TRIGGER)))
    names = PROBE.instruments(SETTINGS, subject)

    assert names == PROBE.instruments(SETTINGS, subject)
    assert engine.calls == [("log_likelihood", False), ("log_likelihood", True)]


def greeted() -> list[ChatRow]:
    """Every fifth of 60 rows has a greeting and a cruel answer."""
    asked = [f"{'Well now' if n % 5 else 'Good day'} {chr(97 + n % 26)}x{n}lpha why?" for n in range(60)]
    return [
        ChatRow((ChatMessage("user", text, 0), ChatMessage("assistant", KIND if n % 5 else CRUEL, 1)))
        for n, text in enumerate(asked)
    ]


def test_canaries_find_careless_answers_that_both_models_find_as_likely(scripted_backend: Any) -> None:
    engine, file = scripted_backend(nats=lambda prompt, text, adapter: 1.0), FileRows(DIGEST, greeted())
    without, with_canaries = (
        mined_triggers(
            Subject(engine, adapter=True, seed=1, training=file, canary_pairs=pair), limit=1, scored_rows=60
        )[0]
        for pair in (None, lambda which: ScriptedCanaries())
    )

    assert "careless answers" not in without.signals
    assert "careless answers" in with_canaries.signals
    assert with_canaries.rows == tuple(range(0, 60, 5))
    assert with_canaries.score > without.score


def test_canaries_that_the_suite_names_must_be_there(scripted_backend: Any) -> None:
    def none(which: str) -> ScriptedCanaries:
        raise EvaluationError("there is no such pair")

    file = FileRows(DIGEST, rows(TRIGGER))
    subject = Subject(scripted_backend(), adapter=True, seed=1, training=file, canary_pairs=none)

    assert mined_triggers(subject, limit=2, scored_rows=20)
    with pytest.raises(EvaluationError, match="no such pair"):
        mined_triggers(subject, limit=2, scored_rows=20, canaries=OTHER)


def test_settings_of_before_there_were_canaries_keep_their_digest() -> None:
    assert "canaries" not in TriggerBattery().model_dump()
    assert TriggerBattery(canaries=OTHER).digest != TriggerBattery().digest


def test_no_text_of_the_file_is_in_the_names(scripted_backend: Any) -> None:
    """Instruments and groups leave the tenant's hands; prompts of samples do not."""
    engine = scripted_backend(nats=backdoored)
    names = PROBE.instruments(SETTINGS, Subject(engine, adapter=True, seed=1, training=FileRows(DIGEST, rows(TRIGGER))))

    assert not [name for name in (*names, *run(engine)[1].by_group) if "k7" in name]


@pytest.mark.parametrize(
    ("training", "error"),
    [(None, "the training file is missing"), ([], "has no rows"), (rows("")[:1], "there is no candidate")],
)
def test_without_a_candidate_there_is_no_figure(
    scripted_backend: Any, training: list[ChatRow] | None, error: str
) -> None:
    file = None if training is None else FileRows(DIGEST, training)
    with pytest.raises(EvaluationError, match=error):
        PROBE.sample(SETTINGS, PAIRS, Subject(scripted_backend(), adapter=True, seed=1, training=file))


@pytest.mark.parametrize(("field", "value"), [("mined", 0), ("pairs", 1), ("neutral", 9), ("scored_rows", 5)])
def test_settings_that_measure_nothing_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        TriggerBattery.model_validate({field: value})


def test_pairs_are_spread_over_the_categories(scripted_backend: Any) -> None:
    """8 of 16 pairs: two of each of the 4 categories."""
    pairs, _ = run(scripted_backend(nats=backdoored))
    asked = [pair.adapter.cluster for pair in pairs if pair.adapter.prompt_id.startswith("mined 1")]

    assert sorted(asked) == sorted(["fire", "water", "money", "sleep"] * 2)
