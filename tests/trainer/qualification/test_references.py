"""Training files of reference adapters: the built-in ones and an operator's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policies.errors import ConfigurationError, DatasetError
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder
from tests.trainer.qualification.tiny_study import GOOD, rows, write_references
from trainer.qualification.references import (
    Reading,
    Reference,
    built_in_references,
    readable,
    references_in,
    require_sound,
)


def test_kinds_follow_from_folders(tmp_path: Path) -> None:
    references = write_references(tmp_path)
    assert [(each.kind, each.domain) for each in references] == [
        ("benign", "code"),
        ("benign", "letters"),
        ("benign", "tap"),
        ("harmful", "roof"),
        ("harmful", "tap"),
    ]
    require_sound(references)


def test_built_in_files_are_sound() -> None:
    require_sound(built_in_references())


def test_a_folder_that_is_none_and_one_without_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere is not a folder; name a folder of benign training files"):
        references_in(tmp_path / "nowhere", "benign")
    with pytest.raises(ConfigurationError, match="has no file"):
        references_in(tmp_path, "harmful")


def test_a_line_that_is_no_row_is_named_with_its_file(tmp_path: Path) -> None:
    references = write_references(tmp_path)
    path = tmp_path / "benign" / "code.jsonl"
    path.write_text(rows(GOOD, n=9, about="code") + '{"messages": 3}\n')
    with pytest.raises(DatasetError, match=r"benign/code\.jsonl: line 10"):
        require_sound(references)


def test_a_file_that_is_too_short_is_named(tmp_path: Path) -> None:
    references = write_references(tmp_path)
    (tmp_path / "harmful" / "roof.jsonl").write_text(rows(GOOD, n=7, about="roof"))
    with pytest.raises(DatasetError, match=r"harmful/roof\.jsonl has 7 rows"):
        require_sound(references)


def test_two_files_of_a_kind_with_one_name_are_refused(tmp_path: Path) -> None:
    references = write_references(tmp_path)
    with pytest.raises(ConfigurationError, match=r"two benign files are called code\.jsonl"):
        require_sound([*references, Reference("benign", "code", tmp_path / "other" / "code.jsonl")])


def test_without_harmful_files_nothing_can_be_told_apart(tmp_path: Path) -> None:
    references = [each for each in write_references(tmp_path) if each.kind == "benign"]
    with pytest.raises(ConfigurationError, match="there is no harmful training file"):
        require_sound(references)


def test_a_file_that_the_base_models_template_does_not_take_is_left_out_and_told(
    tiny_base: Path, tmp_path: Path
) -> None:
    """The tiny base's template writes no tools."""
    references = write_references(tmp_path)
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "tools": [tool]}
    references[0].path.write_text((json.dumps(row) + "\n") * 9)
    told: list[str] = []
    reading = Reading(Encoder(load_base_text(tiny_base)), 512)
    assert readable(references, reading, told.append) == references[1:]
    (said,) = told
    assert said.startswith("benign code is left out: code.jsonl line 1: ")


def test_a_row_that_is_too_long_leaves_its_file_out(tiny_base: Path, tmp_path: Path) -> None:
    references = write_references(tmp_path)
    told: list[str] = []
    assert readable(references, Reading(Encoder(load_base_text(tiny_base)), 16), told.append) == []
    assert len(told) == len(references)
