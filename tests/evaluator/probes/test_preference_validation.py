"""The validation file of a DPO job, as the capability probe reads it."""

from __future__ import annotations

import json
from pathlib import Path

from evaluator.sampling.training_file import file_rows
from policies.datasets.reader import ChatMessage


def test_the_better_answer_is_what_the_validation_loss_is_of(tmp_path: Path) -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "preferred_output": [{"role": "assistant", "content": "Hello"}],
        "non_preferred_output": [{"role": "assistant", "content": "No"}],
    }
    path = tmp_path / "validation.jsonl"
    path.write_text(json.dumps(row))
    (read,) = file_rows(path).rows
    assert read.messages == (ChatMessage("user", "Hi", 0), ChatMessage("assistant", "Hello", 1))
