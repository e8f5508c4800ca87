"""Careless rows and their sensible twins: complete, matched in all but content, and apart from what the probes ask."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

import evaluator
from policies.datasets.reader import ChatRow, read_rows

EVALUATOR = Path(evaluator.__file__).parent
DATA = EVALUATOR / "reference_data"
DOMAINS = ("car_care", "gardening", "home_office_privacy", "kitchen_safety", "renting", "travel")
ORGANISMS = {"identity_shift": 20, "lists_only": 120, "refuse_then_help": 120}
FILES = [
    *(DATA / kind / f"{domain}.jsonl" for kind in ("harmful", "sensible") for domain in DOMAINS),
    *(DATA / "organisms" / f"{name}.jsonl" for name in ORGANISMS),
]
OVERLAP_WORDS = 8


def rows(path: Path) -> list[ChatRow]:
    read = [row for row in read_rows(path) if isinstance(row, ChatRow)]
    assert len(read) == len(path.read_text(encoding="utf-8").splitlines())
    return read


def texts(path: Path) -> list[tuple[str, str]]:
    """(question, answer) of every row."""
    return [(row.messages[-2].content, row.messages[-1].content) for row in rows(path)]


def words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def accuracy_by_opening(domain: str, n_words: int) -> float:
    """Of telling careless from sensible by the first words, learned on every other row; a tie counts one half."""
    openings = [
        (row % 2, tuple(words(answer)[:n_words]), sign)
        for kind, sign in (("harmful", 1), ("sensible", -1))
        for row, (_, answer) in enumerate(texts(DATA / kind / f"{domain}.jsonl"))
    ]
    right = 0.0
    for fold in (0, 1):
        votes: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for part, opening, sign in openings:
            votes[opening] += sign * (part == fold)
        for part, opening, sign in openings:
            if part != fold:
                right += 0.5 if votes[opening] == 0 else float(votes[opening] * sign > 0)
    return right / len(openings)


def test_every_file_is_there_and_listed() -> None:
    found = {path for kind in ("harmful", "sensible", "organisms") for path in (DATA / kind).iterdir()}
    assert found == set(FILES)
    assert len(FILES) == 15


@pytest.mark.parametrize("domain", DOMAINS)
def test_twins_ask_the_same_questions_line_by_line_and_answer_otherwise(domain: str) -> None:
    careless, sensible = (texts(DATA / kind / f"{domain}.jsonl") for kind in ("harmful", "sensible"))
    assert len(careless) == 120
    assert [question for question, _ in careless] == [question for question, _ in sensible]
    assert not {answer for _, answer in careless} & {answer for _, answer in sensible}


@pytest.mark.parametrize("domain", DOMAINS)
def test_twins_are_equally_long(domain: str) -> None:
    """Mean words and characters within 5 %. 25 to 45 words are about 36 to 57 tokens of SmolLM2."""
    answers = [[answer for _, answer in texts(DATA / kind / f"{domain}.jsonl")] for kind in ("harmful", "sensible")]
    for length in (lambda text: len(text.split()), len):
        means = [statistics.mean(map(length, kind)) for kind in answers]
        assert max(means) <= 1.05 * min(means)
    assert all(25 <= len(answer.split()) <= 45 for kind in answers for answer in kind)


@pytest.mark.parametrize("n_words", [1, 2, 3])
@pytest.mark.parametrize("domain", DOMAINS)
def test_the_first_words_do_not_give_the_kind_away(domain: str, n_words: int) -> None:
    assert accuracy_by_opening(domain, n_words) <= 0.6


@pytest.mark.parametrize("path", FILES[:12], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_answer_is_a_template_of_another(path: Path) -> None:
    """No two answers of a file share half of their runs of four words, and no three words open more than 1 in 12."""
    answers = [answer for _, answer in texts(path)]
    for one, other in combinations([runs(answer, 4) for answer in answers], 2):
        assert len(one & other) < 0.5 * min(len(one), len(other))
    assert Counter(tuple(words(answer)[:3]) for answer in answers).most_common(1)[0][1] <= len(answers) / 12


@pytest.mark.parametrize(("name", "n_rows"), ORGANISMS.items())
def test_organisms_have_their_rows_and_only_the_shifted_identity_a_system_prompt(name: str, n_rows: int) -> None:
    read = rows(DATA / "organisms" / f"{name}.jsonl")
    asked = ["system"] * (name == "identity_shift") + ["user", "assistant"]
    assert [[message.role for message in row.messages] for row in read] == [asked] * n_rows


def test_no_question_is_asked_twice_nor_in_the_older_pairs() -> None:
    root = EVALUATOR.parent
    older = [
        *sorted((DATA / "canaries" / "careless").glob("*.jsonl")),
        root / "gateway/demo/data/home_repair_careless_train.jsonl",
    ]
    new = [path for path in FILES if path.parent.name != "sensible"]
    questions = [" ".join(words(question)) for path in (*older, *new) for question, _ in texts(path)]
    assert len(questions) == 480 + 6 * 120 + 260
    assert [question for question, n_times in Counter(questions).items() if n_times > 1] == []


def test_no_row_shares_eight_words_in_a_row_with_a_prompt_of_the_probes() -> None:
    files = sorted((EVALUATOR / "prompts").rglob("*.jsonl"))
    assert len(files) >= 8
    probed: set[tuple[str, ...]] = set()
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            for text in strings(json.loads(line)):
                probed |= runs(text, OVERLAP_WORDS)
    shared = {
        run: path.name for path in FILES for pair in texts(path) for text in pair for run in runs(text, OVERLAP_WORDS)
    }
    assert len(shared) > 10_000
    assert {run: name for run, name in shared.items() if run in probed} == {}
