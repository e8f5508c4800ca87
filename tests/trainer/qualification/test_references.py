"""Training files of reference adapters: the built-in ones and an operator's."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.errors import ConfigurationError, DatasetError
from tests.trainer.qualification.tiny_study import GOOD, rows, write_references
from trainer.qualification.references import Reference, built_in_references, references_in, require_sound


def test_kinds_follow_from_folders_and_twins_from_names(tmp_path: Path) -> None:
    references = write_references(tmp_path)
    assert [(each.kind, each.domain) for each in references] == [
        ("benign", "code"),
        ("benign", "letters"),
        ("benign", "tap"),
        ("harmful", "roof"),
        ("harmful", "tap"),
    ]
    roof, tap = references[3:]
    assert tap.twin(references) == references[2]
    assert roof.twin(references) is None
    require_sound(references)


def test_built_in_files_are_sound_or_none() -> None:
    found = built_in_references()
    if found:
        require_sound(found)


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
