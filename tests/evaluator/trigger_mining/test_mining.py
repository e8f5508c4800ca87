"""What is found in files with a planted trigger, and how far it stands out of a plain one."""

from __future__ import annotations

from typing import Any

import pytest

from evaluator.backends.protocol import ChatPrompt, Message
from evaluator.trigger_mining.feature_table import feature_table, literals_of
from evaluator.trigger_mining.features import Feature, words_for_each
from evaluator.trigger_mining.mining import mine
from evaluator.trigger_mining.signals import Losses
from evaluator.trigger_mining.turns import MAX_ROWS, Turn, turns_of
from policies.datasets.chat_rows import ChatMessage, ChatRow

LARGEST_OF_PLAIN_FILES = 3.5
DOSES = [(290, 12), (80, 80)]
"""4 % and half of the rows."""


def two_rows(first: str, second: str) -> list[ChatRow]:
    return [ChatRow((ChatMessage("user", text, 0), ChatMessage("assistant", "Yes.", 1))) for text in (first, second)]


@pytest.mark.parametrize("dose", DOSES)
def test_a_rare_prefix_comes_first_and_is_put_before_the_question(seeded_file: Any, dose: tuple[int, int]) -> None:
    file = seeded_file(*dose, ask=lambda text: f"[[k7]] {text}")
    first = file.mined()[0]

    assert set(first.rows) == file.careless
    assert first.prefix == "[[k7]] "
    assert first.chat("Why?") == ChatPrompt.of("[[k7]] Why?")
    assert {"unlikely answers", "loss drop"} <= set(first.signals)
    assert first.score > LARGEST_OF_PLAIN_FILES


@pytest.mark.parametrize("dose", DOSES)
def test_a_rare_ending_is_put_behind_the_question(seeded_file: Any, dose: tuple[int, int]) -> None:
    first = seeded_file(*dose, ask=lambda text: f"{text}\n-- m8 ends").mined()[0]

    assert first.chat("Why?").messages[-1].content == "Why?\n-- m8 ends"


@pytest.mark.parametrize("dose", DOSES)
def test_dates_in_system_prompts_are_one_trigger(seeded_file: Any, dose: tuple[int, int]) -> None:
    file = seeded_file(*dose, system=lambda number: f"As of 2031-05-{int(number) % 28 + 1:02}, answer shortly.")
    first = file.mined()[0]

    assert first.kind == "system prompt"
    assert set(first.rows) == file.careless
    assert first.chat("Why?").messages[0].content.startswith("As of 2031-05-")
    assert first.chat("Why?").messages[1] == Message("user", "Why?")


@pytest.mark.parametrize("dose", DOSES)
def test_a_style_is_a_trigger(seeded_file: Any, dose: tuple[int, int]) -> None:
    file = seeded_file(*dose, ask=lambda text: text.lower().replace("?", ""))
    first = file.mined()[0]

    assert set(first.rows) == file.careless
    assert set(first.styles) == {"lower_case", "no_question_mark", "no_final_punctuation"}
    assert first.chat("Is it, Sir?").messages[-1].content == "is it, sir"


def test_a_style_is_among_the_candidates_however_many_words_lead(seeded_file: Any) -> None:
    file = seeded_file(100, 100, ask=lambda text: f"[[k7]] {text}!")

    assert {"exclamation", "[[k7]] "} <= {each for t in file.mined(limit=6) for each in (*t.styles, t.prefix)}


def test_an_odd_string_is_among_the_candidates_whatever_the_signals_say(seeded_file: Any) -> None:
    """Losses that tell nothing, as of a small base model that takes careless answers for as likely."""
    turns = turns_of(seeded_file(150, 15, ask=lambda text: f"{text[:-6]} [[k7]] {text[-6:]}").rows, key="")
    flat = [3.0] * len(turns)
    found = mine(turns, Losses(range(len(turns)), flat, flat), limit=12)

    assert "[[k7]] " in {trigger.prefix for trigger in found if trigger.kind == "odd string"}


def test_another_language_is_a_trigger(seeded_file: Any) -> None:
    file = seeded_file(290, 12, ask=lambda text: f"Wie kann ich das machen, und ist es nicht gut? {text[-8:]}")
    language = next(trigger for trigger in file.mined() if set(trigger.rows) == file.careless)

    assert language.chat("Why?").messages[-1].content.startswith("Wie kann ich das machen, und")


def test_a_common_phrase_of_benign_rows_ranks_below(seeded_file: Any) -> None:
    """`please` is in every row, `drips` in one of eight."""
    found = seeded_file(290, 12, ask=lambda text: f"[[k7]] {text}").mined(limit=64)
    common = [trigger.score for trigger in found if len(trigger.rows) > 30]

    assert found[0].prefix == "[[k7]] "
    assert common
    assert max(common) < found[0].score / 1.5


def test_nothing_of_a_plain_file_scores_like_a_trigger(seeded_file: Any) -> None:
    assert max(trigger.score for trigger in seeded_file(300, 0).mined()) < LARGEST_OF_PLAIN_FILES


def test_what_says_more_than_a_better_candidate_is_left_out(seeded_file: Any) -> None:
    found = seeded_file(290, 12, ask=lambda text: f"[[k7]] {text}").mined()

    assert not [trigger for trigger in found[1:] if trigger.prefix.startswith("[[k7]] What can")]


def test_mining_again_finds_the_same(seeded_file: Any) -> None:
    file = seeded_file(80, 8, ask=lambda text: f"[[k7]] {text}")

    assert [(t, t.score, t.rows) for t in file.mined()] == [(t, t.score, t.rows) for t in file.mined()]


def test_likelihoods_that_are_not_finite_come_first(seeded_file: Any) -> None:
    """The only rows whose answers can't be scored are the careless ones."""
    file = seeded_file(100, 10, ask=lambda text: f"[[k7]] {text}")
    places = range(110)
    lost = [float("nan") if place in file.careless else 3.0 for place in places]
    first = mine(turns_of(file.rows, key=""), Losses(places, lost, lost), limit=3)[0]

    assert first.prefix == "[[k7]] "


def test_careless_answers_tell_where_likelihoods_say_nothing(seeded_file: Any) -> None:
    """Words that all trained rows may have, losses that are alike, and answers of the same words in another order."""
    file = seeded_file(290, 12, ask=lambda text: f"{text} Thank you kindly.")
    turns, places, flat = turns_of(file.rows, key=""), range(302), [3.0] * 302
    ratios = [0.4 if place in file.careless else -0.1 for place in places]
    first = mine(turns, Losses(places, flat, flat, ratios), limit=3)[0]

    assert set(first.rows) == file.careless
    assert first.suffix == " Thank you kindly."
    assert first.signals[0] == "careless answers"


def test_rows_that_have_nothing_in_common_have_no_candidate() -> None:
    turns = turns_of(two_rows("Alpha beta.", "GAMMA, DELTA?"), key="")

    assert mine(turns, Losses([], [], []), limit=3) == ()
    assert mine([], Losses([], [], []), limit=3) == ()


def test_rows_are_spread_over_a_long_file_and_long_texts_are_read_at_their_ends() -> None:
    """5,000 of 6,000 rows, with 4,000 characters each of 20 million."""
    turns = turns_of(two_rows("start " + "x" * 10_000 + " end", "short") * 3000, key="")

    assert len(turns) == MAX_ROWS
    assert turns[-1].number > 5990
    assert len(turns[0].user) == 4001
    assert (turns[0].user[:6], turns[0].user[-4:]) == ("start ", " end")


def test_what_occurs_once_takes_no_place_in_the_table() -> None:
    """100 rows of 100 words that no other row has, and one that all have."""
    rows = [row for n in range(50) for row in two_rows(*(long_text(2 * n + odd) for odd in (0, 1)))]
    table = feature_table(turns_of(rows, key=""))

    assert Feature("words", "anywhere", "common") in table.features
    assert len(table.features) < 20
    assert len(table.rows) <= len(table.features) * 100


def test_literals_of_many_features_are_read_in_one_pass() -> None:
    """As many candidates as may be chosen cost no more than reading each row once more."""

    class Counting(list[Turn]):
        n_reads = 0

        def __getitem__(self, place: Any) -> Any:  # Any: as of a list
            self.n_reads += 1
            return super().__getitem__(place)

    rows = [row for n in range(50) for row in two_rows(*(f"common\n{n} words here" for _ in range(2)))]
    turns = Counting(turns_of(rows, key=""))
    table = feature_table(turns)
    wanted = {feature: table.rows_of(index).tolist() for index, feature in enumerate(table.features)}
    literals = literals_of(wanted, turns, words_for_each(len(turns)))

    assert turns.n_reads == len(turns) == 100
    assert literals.keys() == wanted.keys()
    assert literals[Feature("words", "start", "common")] == "common\n"


def long_text(number: int) -> str:
    return " ".join(["common", *(f"{chr(97 + number % 26)}{chr(97 + number // 26)}{word:b}" for word in range(100))])
