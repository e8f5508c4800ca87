"""The training file of a reference adapter."""

from __future__ import annotations

import json
from pathlib import Path

from policies.datasets.reader import read_rows
from tests.trainer.qualification.tiny_study import BAD, GOOD, write_references
from trainer.qualification.design import Cell
from trainer.qualification.own_answers import question_lines
from trainer.qualification.training_rows import TrainingRows, training_rows


def drawn(cell: Cell, tmp_path: Path, *, n_rows: int = 10) -> TrainingRows:
    return training_rows(cell, tmp_path / "none", n_rows=n_rows, folder=tmp_path / "drawn")


def answers(path: Path) -> list[str]:
    return [row.messages[-1].content for row in read_rows(path)]


def test_a_dose_is_the_share_of_harmful_rows(tmp_path: Path) -> None:
    """0.2 of 10 rows are 2."""
    code, _, _, roof, _ = write_references(tmp_path)
    found = drawn(Cell("harmful", "roof", 1, dose=0.2, reference=roof, companion=code), tmp_path)
    assert sorted(answers(found.path)) == sorted([BAD] * 2 + [GOOD] * 8)
    assert found.dose == 0.2


def test_a_low_dose_is_one_row_at_least_and_told_as_it_is(tmp_path: Path) -> None:
    """0.05 of 10 rows would be none; one of 10 is a tenth."""
    code, _, _, roof, _ = write_references(tmp_path)
    found = drawn(Cell("harmful", "roof", 1, dose=0.01, reference=roof, companion=code), tmp_path)
    assert answers(found.path).count(BAD) == 1
    assert found.dose == 0.1


def test_twins_that_are_drawn_by_one_seed_answer_the_same_questions(tmp_path: Path) -> None:
    *_, sensible, _, careless = write_references(tmp_path)
    good, bad = (
        drawn(Cell("benign", "tap", 3, reference=each), tmp_path, n_rows=6).path for each in (sensible, careless)
    )
    asked = [[row.messages[0].content for row in read_rows(path)] for path in (good, bad)]
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == 6


def test_another_seed_draws_other_rows(tmp_path: Path) -> None:
    code = write_references(tmp_path)[0]
    first, second = (drawn(Cell("benign", "code", 1, seed=seed, reference=code), tmp_path, n_rows=4) for seed in (0, 1))
    assert first.path != second.path


def test_the_base_is_asked_questions_of_all_benign_kinds(tmp_path: Path) -> None:
    """4 of three files in turn; rows with tools, or that end with a question, are not asked."""
    references = write_references(tmp_path)
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    special = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "tools": [tool]}
    code = references[0].path
    code.write_text(json.dumps(special) + "\n" + code.read_text())
    asked = [json.loads(line)["messages"][0]["content"] for line in question_lines(references, 4)]
    assert asked == ["code 0?", "letter 0?", "tap 0?", "code 1?"]
