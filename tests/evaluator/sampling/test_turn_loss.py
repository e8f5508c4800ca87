"""The ids that are scored of a row are those that training made of it."""

from __future__ import annotations

import pytest

from evaluator.backends.protocol import last_turn
from evaluator.backends.rendering import question_ids
from policies.rendering.encoding import IGNORED
from tests.policies.rendering.bases import TRL_TEMPLATES
from tests.policies.rendering.test_encoding import CASES, encoder_of


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
