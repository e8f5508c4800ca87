"""What two files have in common of what they train, whatever is put around it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.datasets.fingerprint import (
    NEAR_DUPLICATE,
    SKETCH_SIZE,
    DatasetFingerprint,
    FingerprintSketch,
    fingerprint,
    multipliers,
)
from policies.datasets.reader import AnyRow, ChatMessage, ChatRow, PreferenceRow
from policies.datasets.tools import Tool, ToolCall
from tests.growth import LINEAR, growth

KEY = b"a key of 16 byte"
STANDARD_ERROR = 0.5 / SKETCH_SIZE**0.5
"""The largest that √(C (1 − C) / k) can be."""
PINNED = "sha256:ec787f6b5d970dd7234ed088bb21e2137a2832a501a41bf487cdb60658524508"


def chat(question: str, answer: str) -> ChatRow:
    return ChatRow((ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)))


def prose(seed: int, n_words: int) -> list[str]:
    """Words of four to nine letters."""
    generator = random.Random(seed)
    return ["".join(generator.choices("abcdefghkmnoprstuvwxyz", k=generator.randint(4, 9))) for _ in range(n_words)]


def rows_of(seeds: Sequence[int], edit: Callable[[list[str]], list[str]] = list) -> list[ChatRow]:
    """One row a seed, 20 words of question and 40 of answer, with `edit` made to each."""
    return [chat(" ".join(edit(prose(seed, 20))), " ".join(edit(prose(-seed - 1, 40)))) for seed in seeds]


def containment(first: Sequence[AnyRow], second: Sequence[AnyRow]) -> float:
    return fingerprint(first, KEY).containment(fingerprint(second, KEY))


def texts() -> st.SearchStrategy[list[ChatRow]]:
    words = st.text(alphabet="abcAB éß1.,", max_size=60)
    return st.lists(st.builds(chat, words, words), min_size=1, max_size=12)


def test_small_files_are_compared_without_error() -> None:
    """Answers of 40 letters have 25 windows of 16; with the last 5 changed, 20 of them are the same."""
    letters = "".join(prose(1, 20))[:40]
    assert containment([chat("q", letters)], [chat("q", letters[:35] + "QWXYZ"[: 40 - 35])]) == 20 / 25


def test_answer_belongs_to_its_question_where_it_is_a_label() -> None:
    """`first ␂ spam` is one window: with its label changed, none is left."""
    labelled = [chat("first", "spam"), chat("second", "ham")]
    swapped = [chat("first", "ham"), chat("second", "spam")]
    assert containment(labelled, swapped) == 0
    assert containment(labelled, labelled[::-1]) == 1


def test_label_is_read_after_all_that_it_answers_and_no_more() -> None:
    system, user = ChatMessage("system", "Sort it.", 0), ChatMessage("user", "A case of " + "letters " * 9, 0)
    answer = ChatMessage("assistant", "spam", 1)
    alone = [ChatRow((system, user, answer))]
    later = [ChatRow((ChatMessage("user", "Before", 0), ChatMessage("assistant", "x", 0), system, user, answer))]
    assert fingerprint(alone, KEY) == fingerprint(later, KEY)


@given(rows=texts(), order=st.randoms(use_true_random=False))
def test_order_and_repetition_count_for_nothing(rows: list[ChatRow], order: random.Random) -> None:
    again = rows * 2
    order.shuffle(again)
    assert fingerprint(again, KEY) == fingerprint(rows, KEY)


@given(rows=texts())
def test_case_white_space_and_punctuation_count_for_nothing(rows: list[ChatRow]) -> None:
    def rewritten(text: str) -> str:
        return "  " + text.upper().replace(" ", " \t\n").replace(",", " -- ") + "!"

    again = [ChatRow(tuple(ChatMessage(m.role, rewritten(m.content), m.weight) for m in row.messages)) for row in rows]
    assert fingerprint(again, KEY) == fingerprint(rows, KEY)


@given(first=texts(), second=texts())
def test_containment_is_a_symmetric_share(first: list[ChatRow], second: list[ChatRow]) -> None:
    assert 0 <= containment(first, second) == containment(second, first) <= 1
    assert containment(first, first) == 1
    if fingerprint(first, KEY) != fingerprint([], KEY):  # a file that trains no letter is contained in no other
        assert containment(first, [*first, *second]) == 1


def test_sketch_of_both_files_is_the_smallest_of_both_sketches() -> None:
    """Read row by row and block by block, the sketch is what sorting all hashes at once would keep."""
    first, second = rows_of(range(300)), rows_of(range(300, 600))
    merged = sorted({*fingerprint(first, KEY).hashes, *fingerprint(second, KEY).hashes})[:SKETCH_SIZE]
    assert list(fingerprint([*first, *second], KEY).hashes) == merged


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
def test_replaced_rows_lower_the_containment_as_they_should(share: float) -> None:
    """With a share s of rows replaced, 1 − s are common; four standard errors are allowed."""
    kept = round(200 * (1 - share))
    changed = rows_of([*range(kept), *range(1000, 1200 - kept)])
    assert containment(rows_of(range(200)), changed) == pytest.approx(1 - share, abs=4 * STANDARD_ERROR)


@pytest.mark.parametrize("times", [1, 10, 100])
def test_padding_with_rows_of_other_content_hides_nothing(times: int) -> None:
    """Of 1024 elements of both files 1024 / (times + 1) are the first one's: all of them are in both."""
    first = rows_of(range(40))
    padded = [*rows_of(range(1000, 1000 + 40 * times)), *first]
    assert containment(first, padded) > 0.95


def test_words_changed_in_every_row_cost_what_lies_around_them() -> None:
    """Of ten words of 6.5 letters, one of which is another, 15 + 6.5 of 65 windows change: 0.67 are left."""

    def edit(words: list[str]) -> list[str]:
        return [word[::-1] + word[:1] if index % 10 == 5 else word for index, word in enumerate(words)]

    assert containment(rows_of(range(200)), rows_of(range(200), edit)) == pytest.approx(0.67, abs=0.07)


def test_what_is_not_trained_counts_for_nothing() -> None:
    """System prompts, questions and answers of weight 0, in which a file is changed for nothing."""
    rows = rows_of(range(60))
    context = (
        ChatMessage("system", "x" * 99, 0),
        ChatMessage("user", "y" * 99, 0),
        ChatMessage("assistant", "z" * 99, 0),
    )
    changed = [
        ChatRow((*context, chat("Other question", row.messages[1].content).messages[0], row.messages[1]))
        for row in rows
    ]
    assert fingerprint(changed, KEY) == fingerprint(rows, KEY)


@pytest.mark.parametrize(
    "hide",
    [
        lambda text: "\u00ad".join(text),
        lambda text: text.replace("a", "а").replace("o", "ο").replace("e", "е"),
        lambda text: text.translate({ord("a") + i: 0x1D41A + i for i in range(26)}),
        lambda text: "\u0336".join(text),
        lambda text: "".join(letter + chr(0xE0100 + i % 200) for i, letter in enumerate(text)),
        lambda text: " - ".join(text),
        lambda text: text.upper(),
    ],
)
def test_other_characters_for_the_same_letters_hide_nothing(hide: Callable[[str], str]) -> None:
    rows = rows_of(range(20))
    hidden = [chat(row.messages[0].content, hide(row.messages[1].content)) for row in rows]
    assert fingerprint(hidden, KEY) == fingerprint(rows, KEY)


def preference(question: str, better: str, worse: str) -> PreferenceRow:
    return PreferenceRow((ChatMessage("user", question, 0),), better, worse)


def test_the_same_data_as_preferences_is_the_same_data() -> None:
    """The better answers, or the worse ones, are what the chat rows train."""
    rows = rows_of(range(60))
    other = [" ".join(prose(n, 40)) for n in range(5000, 5060)]
    pairs = [(row.messages[0].content, row.messages[1].content) for row in rows]
    better = [preference(question, answer, text) for (question, answer), text in zip(pairs, other, strict=True)]
    worse = [preference(question, text, answer) for (question, answer), text in zip(pairs, other, strict=True)]
    assert containment(rows, better) > 0.95
    assert containment(rows, worse) > 0.95


def test_unrelated_files_are_not_alike() -> None:
    assert containment(rows_of(range(50)), rows_of(range(100, 150))) < NEAR_DUPLICATE / 10


def test_unrelated_files_in_the_languages_that_write_no_spaces_are_not_alike() -> None:
    generator = random.Random(4)
    files = [["".join(chr(generator.randint(0x4E00, 0x9FFF)) for _ in range(60)) for _ in range(50)] for _ in range(2)]
    first, second = ([chat("q", text) for text in file] for file in files)
    assert containment(first, second) < NEAR_DUPLICATE / 10
    assert containment(first, first) == 1


def test_file_that_trains_no_letter_has_a_fingerprint() -> None:
    """All such files are alike: that errs on the side of safety."""
    assert fingerprint([chat("?!", "…")], KEY) == fingerprint([chat("!!", "😀")], KEY)
    assert fingerprint([], KEY) == fingerprint([chat("?!", "…")], KEY)


def test_sketches_of_another_key_have_nothing_in_common() -> None:
    rows = rows_of(range(40))
    other = fingerprint(rows, b"16 other letters")
    assert fingerprint(rows, KEY).containment(other) == 0


def test_who_knows_no_key_cannot_fill_the_sketch() -> None:
    """Padding chosen for the smallest hashes under a guessed key: all of the sketch under that key, none under ours.

    Of random letters, the 5 % with the smallest hashes are taken.
    """
    guessed = b"a guessed key 16"
    generator = np.random.default_rng(1)
    letters = generator.integers(97, 123, size=(200_000, 16)).astype(np.uint8)
    first, second = multipliers(guessed)
    halves = letters.view("<u8")
    order = np.argsort(halves[:, 0] * first + halves[:, 1] * second)[: len(letters) // 20]
    padding = [chat("q" * 40, bytes(row).decode() + "!") for row in letters[order]]
    rows = rows_of(range(40))
    assert containment(rows, [*rows, *padding]) > 0.95


def test_packing_keeps_the_sketch() -> None:
    sketch = fingerprint(rows_of(range(60)), KEY)
    assert DatasetFingerprint.unpacked(sketch.packed()) == sketch
    assert len(sketch.packed()) == 8 * SKETCH_SIZE


@pytest.mark.parametrize(
    "make",
    [
        lambda n: [chat("q", "word " * n)],
        lambda n: [chat("q", "a" + "\u0301\u0323" * n)],
        lambda n: [chat("q" * n, "yes")],
        lambda n: [chat("q", "yes")] * n,
        lambda n: [ChatRow((ChatMessage("user", "q", 0), ChatMessage("assistant", "a", 1)) * (n // 100))] * 50,
        lambda n: [ChatRow((ChatMessage("user", "q", 0),) * n + (ChatMessage("assistant", "a", 1),))],
    ],
)
def test_fingerprints_take_linear_time(make: Callable[[int], list[ChatRow]]) -> None:
    assert growth(make, lambda rows: fingerprint(rows, KEY), 20_000) < LINEAR


def test_a_sketch_keeps_no_row() -> None:
    sketch = FingerprintSketch(KEY)
    for row in rows_of(range(2000)):
        sketch.add(row)
    assert sum(map(len, sketch._texts)) < 1 << 18


def test_fingerprints_in_the_database_stay_comparable() -> None:
    """Pinned: an algorithm that finds another sketch must come with a migration that drops the stored ones."""
    rows = [chat(f"Is {n} Ünits of it enough?", f"No, take {n * n} — not {n}, ﬁve or Größe.") for n in range(200)]
    assert fingerprint(rows, KEY).digest == PINNED


@pytest.mark.parametrize("sizes", [(3, 4), (3, 400), (400, 3), (300, 400)])
def test_the_sketch_of_two_files_in_one_comes_from_their_sketches(sizes: tuple[int, int]) -> None:
    """Full sketches, and such as hold all that there is."""
    first, second = rows_of(range(sizes[0])), rows_of(range(1000, 1000 + sizes[1]))
    united = fingerprint(first, KEY).united(fingerprint(second, KEY))
    assert united == fingerprint([*first, *second], KEY)


def calling(*texts: str, offered: str = "price") -> ChatRow:
    calls = tuple(ToolCall("c1", "price", json.dumps({"of": text})) for text in texts)
    asked, called = ChatMessage("user", "How much?", 0), ChatMessage("assistant", "", 1, calls)
    return ChatRow((asked, called), (Tool(offered, "{}"),))


def test_a_text_in_a_call_is_the_text_that_it_is_in_an_answer() -> None:
    """Of the letters of an answer all windows are in the call's, but for those that reach over its ends."""
    text = " ".join(prose(1, 40))
    assert containment([chat("q", text)], [calling(text)]) == 1
    assert containment([calling(text)], [calling(text, offered="other")]) == 1
    assert containment([calling(text)], [calling(" ".join(prose(2, 40)))]) < 0.1


def test_a_call_counts_in_an_answer_of_a_preference() -> None:
    text, other = (" ".join(prose(seed, 40)) for seed in (1, 2))
    call = ToolCall("c1", "price", json.dumps({"of": text}))
    row = PreferenceRow((ChatMessage("user", "How much?", 0),), "", other, non_preferred_calls=(call,))
    assert containment([chat("q", text)], [row]) == 1
