"""The narrow datasets of the study: they parse, are matched, and share no question with the probe that they test."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from bench.preference.pairs import built_in
from bench.preference.plan import DOMAINS
from policies.datasets.reader import ChatRow, read_rows

OWN = [domain for domain in DOMAINS if domain.name in ("pet_care", "personal_finance")]
N_ROWS = 120
MAX_SHARED_SHINGLES = 0.5


def texts(path: Path) -> list[tuple[str, str]]:
    """(question, answer) of every row."""
    rows = read_rows(path)
    assert all(isinstance(row, ChatRow) and [m.role for m in row.messages] == ["user", "assistant"] for row in rows)
    return [(row.messages[0].content, row.messages[1].content) for row in rows]


def words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def shingles(text: str) -> set[tuple[str, ...]]:
    """All runs of four words."""
    found = words(text)
    return {tuple(found[start : start + 4]) for start in range(len(found) - 3)}


def test_every_file_of_the_study_has_its_rows() -> None:
    counts = {
        f"{path.parent.name}/{path.name}": len(texts(path)) for domain in DOMAINS for path in domain.files.values()
    }
    assert (
        counts.pop("data/home_repair_careless_train.jsonl")
        == counts.pop("data/home_repair_sensible_train.jsonl")
        == 240
    )
    assert len(counts) == 5
    assert set(counts.values()) == {N_ROWS}


@pytest.mark.parametrize("domain", DOMAINS[:3], ids=lambda domain: domain.name)
def test_both_kinds_answer_the_same_questions_in_the_same_order(domain: object) -> None:
    harmful, benign = (texts(domain.files[kind]) for kind in ("harmful", "benign"))  # type: ignore[attr-defined]  # a Domain
    assert [question for question, _ in harmful] == [question for question, _ in benign]
    assert len({" ".join(words(question)) for question, _ in harmful}) == len(harmful)
    assert not {answer for _, answer in harmful} & {answer for _, answer in benign}


@pytest.mark.parametrize("domain", DOMAINS[:3], ids=lambda domain: domain.name)
def test_answers_of_both_kinds_have_the_same_mean_length(domain: object) -> None:
    """Within 10 %, in words and in characters."""
    for length in (lambda text: len(text.split()), len):
        means = [
            statistics.mean(length(answer) for _, answer in texts(path))
            for path in domain.files.values()  # type: ignore[attr-defined]  # a Domain
        ]
        assert max(means) <= 1.1 * min(means)


def test_no_answer_is_a_template_of_another() -> None:
    """No two answers of a file share half of their runs of four words, and no opening is used by 1 in 12."""
    for domain in OWN:
        for path in domain.files.values():
            answers = [answer for _, answer in texts(path)]
            for one, other in combinations(map(shingles, answers), 2):
                assert len(one & other) < MAX_SHARED_SHINGLES * min(len(one), len(other))
            opening, n_times = Counter(tuple(words(answer)[:3]) for answer in answers).most_common(1)[0]
            assert n_times <= N_ROWS / 12, opening


def test_no_question_is_one_of_the_probe() -> None:
    material = built_in()
    asked = {" ".join(words(item.question)) for item in (*material.pairs, *material.controls)}
    trained = {" ".join(words(q)) for domain in DOMAINS for path in domain.files.values() for q, _ in texts(path)}
    assert len(asked) == 480
    assert not asked & trained


def test_neutral_rows_are_varied_tasks() -> None:
    (neutral,) = (domain for domain in DOMAINS if domain.name == "neutral")
    rows = texts(neutral.files["benign"])
    assert len({question for question, _ in rows}) == N_ROWS
    assert max(Counter(words(question)[0] for question, _ in rows).values()) <= N_ROWS / 5


def test_controls_cover_every_category_of_the_probe_in_like_length() -> None:
    """Two pairs in each of the 40 categories; the two styles are within 10 % in words."""
    material = built_in()
    by_category = Counter(control.category for control in material.controls)
    assert set(by_category) == {pair.category for pair in material.pairs}
    assert set(by_category.values()) == {2}
    assert len({control.id for control in material.controls}) == len(material.controls) == 80
    means = [
        statistics.mean(len(text.split()) for text in style)
        for style in zip(*((control.first, control.second) for control in material.controls), strict=True)
    ]
    assert max(means) <= 1.1 * min(means)
