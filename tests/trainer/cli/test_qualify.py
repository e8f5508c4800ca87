"""`tunegate base qualify`: what is refused before the first adapter is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from policies.cli import exit_codes
from policies.cli.main import run
from tests.trainer.qualification.tiny_study import GOOD, rows, write_policy
from trainer.cli.base import app

Qualify = Callable[..., int]


@pytest.fixture
def qualify(tiny_base: Path, tmp_path: Path) -> Qualify:
    """Exit code of the command on the tiny base."""
    root = typer.Typer()
    root.add_typer(app, name="base")
    policy = write_policy(tmp_path)

    def qualify(*options: str, out: str = "record.yaml") -> int:
        arguments = ["--out", str(tmp_path / out), "--policy", str(policy), "--cache-dir", str(tmp_path / "cache")]
        return run(["base", "qualify", str(tiny_base), *arguments, *options], root)

    return qualify


@pytest.mark.parametrize(
    ("options", "out", "told"),
    [
        ((), "record", "record is no YAML file; name one, such as record.yaml"),
        (("--budget", "soon"), "record.yaml", "'soon' is no duration; write 90m, 4h or 1h30m"),
        ((), "folder.yaml", "folder.yaml is a folder; name a file"),
        ((), "file/record.yaml", "nothing can be written to"),
        (("--store", "bogus://here"), "record.yaml", "bogus://here is no artifact store"),
        (("--store", "file/store"), "record.yaml", "file/store is no artifact store"),
        (("--cache-dir", "file/cache"), "record.yaml", "nothing can be written to file/cache"),
        (("--cache-dir", "file"), "record.yaml", "nothing can be written to file"),
        (("--policy", "file/own.yaml"), "record.yaml", "check the path and its permissions"),
        (("--benign", "file"), "record.yaml", "file is not a folder; name a folder of benign training files"),
        (("--benign", "x" * 300), "record.yaml", "is not a folder; name a folder of benign training files"),
        (("--harmful", "nowhere"), "record.yaml", "nowhere is not a folder; name a folder of harmful training files"),
    ],
)
def test_what_can_not_work_is_refused_at_once(
    qualify: Qualify,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    out: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "file").touch()
    assert qualify(*options, out=out) == exit_codes.USAGE
    assert told in capsys.readouterr().err


def test_an_operators_file_with_a_line_that_is_no_row_is_named(
    qualify: Qualify, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("benign", "harmful"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"own_{kind}.jsonl").write_text(rows(GOOD, n=9, about=kind))
    with (tmp_path / "harmful" / "own_harmful.jsonl").open("a") as stream:
        stream.write("no JSON\n")
    assert qualify("--benign", str(tmp_path / "benign"), "--harmful", str(tmp_path / "harmful")) == exit_codes.USAGE
    assert "harmful/own_harmful.jsonl: line 10" in capsys.readouterr().err


def test_fewer_adapters_than_a_record_needs_are_refused(qualify: Qualify, capsys: pytest.CaptureFixture[str]) -> None:
    assert qualify("--benign-adapters", "18") == exit_codes.USAGE
    assert "greater than or equal" in " ".join(capsys.readouterr().err.split())
