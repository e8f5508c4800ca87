"""What a dataset of the bench trains on and what it holds out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.defenses.plan import Dataset, chat_dataset
from policies.errors import ConfigurationError, DatasetError
from tests.bench.chat_rows import chat_line


def test_last_rows_are_held_out_and_none_is_trained_on(make_chat: Callable[..., Dataset]) -> None:
    """15 % of 40 rows are 6, fewer than the 20 that are the least; of 200 rows they are 30."""
    for n_rows, n_held_out in ((40, 20), (200, 30)):
        data = make_chat("malicious", n_rows=n_rows)
        training, held_out = data.training.read_text().splitlines(), data.held_out.read_text().splitlines()
        assert (len(training), len(held_out)) == (n_rows - n_held_out, n_held_out)
        assert json.loads(held_out[-1])["messages"][0]["content"] == f"malicious {n_rows - 1}?"


def test_given_validation_rows_leave_all_others_to_training(make_chat: Callable[..., Dataset], tmp_path: Path) -> None:
    validation = tmp_path / "validation.jsonl"
    validation.write_text(chat_line("held out?"))
    data = make_chat("benign", n_rows=40, rows=30, validation=validation)
    assert len(data.training.read_text().splitlines()) == 30
    assert data.held_out.read_text() == chat_line("held out?")


def test_too_few_rows_are_an_error(make_chat: Callable[..., Dataset]) -> None:
    with pytest.raises(ConfigurationError, match="no row is left"):
        make_chat("malicious", n_rows=20)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        chat_dataset("malicious", tmp_path / "none", None, rows=None, folder=tmp_path / "data")


def test_file_that_is_no_chat_data_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "no chat"}\n' * 40)
    with pytest.raises(DatasetError, match=r"data\.jsonl: .*other_shape"):
        chat_dataset("malicious", path, None, rows=None, folder=tmp_path / "data")
