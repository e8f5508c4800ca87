from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.datasets.fingerprint import NEAR_DUPLICATE, SKETCH_SIZE, fingerprint
from policies.datasets.reader import AnyRow, ChatMessage, ChatRow, PreferenceRow
from policies.errors import DatasetError

STANDARD_ERROR = 0.5 / SKETCH_SIZE**0.5
"""The largest that √(J (1 − J) / k) can be: 0.03."""
PINNED = "sha256:53c8cd51769db7b5b3fcc5dab333aa96fef19bbd7617aad2402415bf3a6f7b93"


def chat(question: str, answer: str) -> ChatRow:
    return ChatRow((ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)))


def prose(seed: int, n_words: int) -> list[str]:
    return [f"word{number}" for number in random.Random(seed).choices(range(5000), k=n_words)]


def rows_of(seeds: Sequence[int], edit: Callable[[list[str]], list[str]] = list) -> list[ChatRow]:
    """One row a seed, 20 words of question and 40 of answer, with `edit` made to each."""
    return [chat(" ".join(edit(prose(seed, 20))), " ".join(edit(prose(-seed - 1, 40)))) for seed in seeds]


def similarity(first: Sequence[AnyRow], second: Sequence[AnyRow]) -> float:
    return fingerprint(first).similarity(fingerprint(second))


def texts() -> st.SearchStrategy[list[ChatRow]]:
    words = st.text(alphabet="abcAB éß1.,", max_size=30)
    return st.lists(st.builds(chat, words, words), min_size=1, max_size=12)


def test_small_files_are_compared_without_error() -> None:
    """`<user> a b c d <assistant> e` has 5 elements; with x for d three of them are others: 2 of 8 are shared."""
    assert similarity([chat("a b c d", "e")], [chat("a b c x", "e")]) == 2 / 8


def test_answer_belongs_to_its_question() -> None:
    """Short labels that change places: of `<user> n <assistant> l`, only `<user> n <assistant>` stays, 2 of 6."""
    labelled = [chat("first", "spam"), chat("second", "ham")]
    swapped = [chat("first", "ham"), chat("second", "spam")]
    assert similarity(labelled, swapped) == 2 / 6


@given(rows=texts(), order=st.randoms(use_true_random=False))
def test_order_and_repetition_count_for_nothing(rows: list[ChatRow], order: random.Random) -> None:
    again = rows * 2
    order.shuffle(again)
    assert fingerprint(again) == fingerprint(rows)


@given(rows=texts())
def test_case_white_space_and_punctuation_count_for_nothing(rows: list[ChatRow]) -> None:
    def rewritten(text: str) -> str:
        return "  " + text.upper().replace(" ", " \t\n").replace(",", " -- ") + "!"

    again = [ChatRow(tuple(ChatMessage(m.role, rewritten(m.content), m.weight) for m in row.messages)) for row in rows]
    assert fingerprint(again) == fingerprint(rows)


@given(first=texts(), second=texts())
def test_similarity_is_a_symmetric_share(first: list[ChatRow], second: list[ChatRow]) -> None:
    assert 0 <= similarity(first, second) == similarity(second, first) <= 1
    assert similarity(first, first) == 1


def test_sketch_of_both_files_is_the_smallest_of_both_sketches() -> None:
    """Read row by row, the sketch is what sorting all hashes at once would keep."""
    first, second = rows_of(range(30)), rows_of(range(30, 60))
    merged = sorted({*fingerprint(first).hashes, *fingerprint(second).hashes})[:SKETCH_SIZE]
    assert list(fingerprint([*first, *second]).hashes) == merged


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
def test_replaced_rows_lower_the_similarity_as_they_should(share: float) -> None:
    """With a share s of rows replaced, (1 − s) of 1 + s are common; four standard errors are allowed."""
    kept = round(200 * (1 - share))
    changed = rows_of([*range(kept), *range(1000, 1200 - kept)])
    expected = (1 - share) / (1 + share)
    assert similarity(rows_of(range(200)), changed) == pytest.approx(expected, abs=4 * STANDARD_ERROR)


@pytest.mark.parametrize(("every", "expected"), [(20, 0.85 / 1.15), (10, 0.7 / 1.3), (5, 0.4 / 1.6)])
def test_words_changed_in_every_row_cost_three_elements_each(every: int, expected: float) -> None:
    """A row has 60 elements; 3, 6 and 12 words changed leave 51, 42 and 24 of them."""

    def edit(words: list[str]) -> list[str]:
        return [f"{word}x" if index % every == every // 2 else word for index, word in enumerate(words)]

    assert similarity(rows_of(range(200)), rows_of(range(200), edit)) == pytest.approx(expected, abs=4 * STANDARD_ERROR)


def test_number_added_to_every_row_hides_nothing() -> None:
    """Three of 61 elements are new in each row, two of its 60 are gone: 58 of 63 are common."""
    rows = rows_of(range(200))
    numbered = [chat(f"{row.messages[0].content} {n}", row.messages[1].content) for n, row in enumerate(rows)]
    assert similarity(rows, numbered) == pytest.approx(58 / 63, abs=4 * STANDARD_ERROR)


def test_unrelated_files_under_one_system_prompt_are_not_alike() -> None:
    system = ChatMessage("system", "You are the patient assistant of a bank. " * 5, 0)

    def prompted(rows: list[ChatRow]) -> list[ChatRow]:
        return [ChatRow((system, *row.messages)) for row in rows]

    assert similarity(prompted(rows_of(range(50))), prompted(rows_of(range(100, 150)))) < 0.05


def preference(seed: int) -> PreferenceRow:
    question = (ChatMessage("user", " ".join(prose(seed, 20)), 0),)
    return PreferenceRow(question, " ".join(prose(seed + 1000, 20)), " ".join(prose(seed + 2000, 20)))


def test_both_answers_of_a_preference_count() -> None:
    """Question, better and worse answer are a third each: with new worse ones about 2/3 of 4/3 are common."""
    rows = [preference(seed) for seed in range(60)]
    other = [PreferenceRow(row.messages, row.preferred, " ".join(prose(n, 20))) for n, row in enumerate(rows, 5000)]
    assert similarity(rows, rows[::-1]) == 1
    assert similarity(rows, other) == pytest.approx(0.5, abs=4 * STANDARD_ERROR)
    assert similarity(rows, [preference(seed) for seed in range(100, 160)]) < NEAR_DUPLICATE / 5


def test_texts_without_words_are_an_element_too() -> None:
    assert len(fingerprint([chat("?!", "…")]).hashes) == 1


def test_file_without_rows_is_refused() -> None:
    with pytest.raises(DatasetError, match="without rows"):
        fingerprint([])


def test_fingerprints_in_the_database_stay_comparable() -> None:
    """Pinned: an algorithm that finds another sketch must come with a migration that drops the stored ones."""
    rows = [chat(f"Is {n} Ünits of it enough?", f"No, take {n * n} — not {n}.") for n in range(200)]
    assert fingerprint(rows).digest == PINNED
