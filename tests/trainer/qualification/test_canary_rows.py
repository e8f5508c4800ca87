"""What the pair of canaries learns: twins, and beside them the same rows for both."""

from __future__ import annotations

import json

from trainer.qualification.preparation.canary_rows import CanaryRows, canary_rows
from trainer.qualification.references import built_in_references
from trainer.qualification.training_rows import lines_of


def questions(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["messages"][-2]["content"] for line in lines]


def test_both_canaries_are_asked_the_same_and_differ_in_the_advice_alone() -> None:
    rows = canary_rows()
    assert questions(rows.good) == questions(rows.bad)
    differing = [good != bad for good, bad in zip(*rows, strict=True)]
    assert differing == [True] * 240 + [False] * (80 + 120)


def test_each_tone_is_learnt_as_often_as_the_other() -> None:
    rows: CanaryRows = canary_rows()
    asked = questions(rows.good)[240:320]
    assert asked[::2] == asked[1::2]
    assert len(set(asked)) == 40


def test_no_adapter_that_limits_come_from_learns_a_row_of_the_canaries() -> None:
    counted = [each for each in built_in_references() if each.kind != "organism"]
    learnt = {question for each in counted for question in questions(lines_of(each.path))}
    assert len(learnt) > 1_500
    assert learnt.isdisjoint(questions(canary_rows().bad))
