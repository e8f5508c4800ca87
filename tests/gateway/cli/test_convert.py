"""`tunegate files convert`, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.commands import COMMANDS
from policies.cli import exit_codes
from policies.cli.main import build_app, run

GOOD = '{"prompt": "My tap drips.", "completion": " Close the valve."}\n'


def convert(folder: Path, content: str, *options: str) -> int:
    (folder / "in.jsonl").write_text(content)
    return run(["files", "convert", str(folder / "in.jsonl"), str(folder / "out.jsonl"), *options], build_app(COMMANDS))


def test_report_says_what_was_read_written_and_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path, GOOD * 3) == exit_codes.OK
    assert capsys.readouterr().out.splitlines() == [
        "shape: prompt_completion",
        "rows: 3 read, 3 written, 0 refused",
        "blanks around completions dropped: 3",
        f"{tmp_path / 'out.jsonl'} is written",
    ]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_refused_rows_are_listed_with_their_lines_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """21 of 22 rows are refused, 20 of them listed."""
    assert convert(tmp_path, GOOD + '{"prompt": "a"}\n' * 21) == exit_codes.USAGE
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "rows: 22 read, 0 written, 21 refused"
    assert told[3] == "line 2: the field completion is missing"
    assert told[-2] == "and 1 more"
    assert "--skip-bad" in told[-1]
    assert not (tmp_path / "out.jsonl").exists()


def test_bad_rows_are_skipped_if_that_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path, GOOD + "{}\n", "--skip-bad", "-o", "json") == exit_codes.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["converted"], report["refused"]) == (2, 1, 1)
    assert report["first_refused"] == [{"number": 2, "reason": "the field prompt is missing"}]


def test_text_alone_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path, '{"text": "a"}\n') == exit_codes.USAGE
    assert "does not say where the question ends" in capsys.readouterr().err
