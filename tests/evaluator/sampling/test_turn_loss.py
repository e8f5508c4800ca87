"""The ids that are scored of a row are those that training made of it."""

from __future__ import annotations

import pytest

from evaluator.backends.protocol import last_turn
from evaluator.backends.rendering import question_ids
from policies.rendering.encoding import IGNORED
from tests.policies.rendering.bases import TRL_TEMPLATES
from tests.policies.rendering.test_encoding import CASES, encoder_of
from tests.policies.rendering.test_tools import WRITES_NAMES
from tests.policies.rendering.tool_rows import USER, said
from tests.policies.rendering.tool_rows import row as row_of


@pytest.mark.parametrize("name", ["qwen3", "llama3_1", "gptoss", "gemma4_v5"])
def test_ids_that_are_scored_are_those_that_were_trained(name: str) -> None:
    encoder, _ = encoder_of(TRL_TEMPLATES[name].read_text(encoding="utf-8"))
    n_with_calls = 0
    for row in CASES.values():
        found = encoder.encode([(1, row)])[0]
        if found.problem is None:
            (answer,) = question_ids(encoder, last_turn(row, closes_turn=True))
            sample = found.samples[-1]
            assert (*answer.prompt_ids, *answer.answer_ids) == sample.input_ids
            assert sample.labels[-len(answer.answer_ids) :] == tuple(answer.answer_ids)
            assert IGNORED not in sample.labels[-len(answer.answer_ids) :]
            n_with_calls += any(message.tool_calls for message in row.messages)
    assert n_with_calls > 4


def test_ids_are_the_same_where_the_assistant_has_a_name() -> None:
    encoder, _ = encoder_of(WRITES_NAMES)
    named = row_of({**USER, "name": "Al"}, said("A1", name="Bob"), {**USER, "name": "Al"}, said("A2", name="Bob"))
    (answer,) = question_ids(encoder, last_turn(named, closes_turn=True))
    (sample,) = encoder.encode([(1, named)])[0].samples
    assert (*answer.prompt_ids, *answer.answer_ids) == sample.input_ids
    assert sample.labels[-len(answer.answer_ids) - 1 :] == (IGNORED, *answer.answer_ids)
