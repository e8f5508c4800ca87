"""Rows of other makers are told from ours."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from policies.datasets.chat_rows import Json
from policies.datasets.reader import iter_any_rows, read_rows
from policies.datasets.shapes import Shape, shape_of
from policies.errors import DatasetError

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
EXAMPLES: dict[Shape, list[Json]] = {
    Shape.PROMPT_COMPLETION: [{"prompt": "a", "completion": "b"}],
    Shape.ALPACA: [
        {"instruction": "a", "input": "", "output": "b"},
        {"instruction": "a", "output": "b", "text": "a b"},
    ],
    Shape.SHAREGPT: [{"conversations": []}, {"system": "s", "conversations": []}],
    Shape.CHOSEN_REJECTED: [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"chosen": [], "rejected": [], "messages": []},
    ],
    Shape.INPUT_LIST: [{"input": [], "preferred_output": [], "non_preferred_output": []}],
    Shape.VERTEX: [{"contents": [], "systemInstruction": {}}],
    Shape.BEDROCK: [{"system": [], "messages": []}, {"schemaVersion": "bedrock-conversation-2024", "messages": []}],
    Shape.TEXT_ONLY: [{"text": "a"}],
}
OURS: list[Json] = [
    {"messages": [USER, ANSWER]},
    {"messages": [], "prompt": "", "completion": ""},
    {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []},
    {"input": {}, "preferred_completion": [], "prompt": "", "completion": ""},
    {"prompt": "a"},
    {},
    [],
    "text",
    None,
]


@pytest.mark.parametrize("shape", Shape)
def test_each_shape_is_known_by_its_keys(shape: Shape) -> None:
    assert {shape_of(value) for value in EXAMPLES[shape]} == {shape}


@pytest.mark.parametrize("value", OURS, ids=str)
def test_rows_of_ours_sound_or_not_and_anything_else_are_of_no_other_shape(value: Json) -> None:
    assert shape_of(value) is None


def test_only_the_first_line_speaks_for_the_file() -> None:
    alpaca = json.dumps(EXAMPLES[Shape.ALPACA][0])
    lines = f"{alpaca}\n{alpaca}\n".encode()
    first, second = iter_any_rows(io.BytesIO(lines))
    assert [(problem.line, problem.code) for problem in first.problems] == [(0, "other_shape")]
    assert "other_shape" not in {problem.code for problem in second.problems}


def test_training_names_the_shape_and_what_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(EXAMPLES[Shape.SHAREGPT][0]))
    with pytest.raises(DatasetError, match=r"of the shape sharegpt.*tunegate files convert"):
        read_rows(path)


def test_a_file_that_is_one_array_is_told_how_it_is_converted() -> None:
    (line,) = iter_any_rows(io.BytesIO(json.dumps([{"messages": []}]).encode()))
    (problem,) = line.problems
    assert (problem.line, problem.code) == (0, "other_shape")
    assert "JSON array" in problem.message
    assert "files convert" in problem.fix
