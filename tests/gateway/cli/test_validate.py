"""`tunegate files validate` on a file here: what a job would find, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.files import app
from policies.cli import exit_codes
from policies.cli.main import run
from tests.gateway.conftest import chat_jsonl


@pytest.fixture(autouse=True)
def without_a_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TUNEGATE_BASE_URL", "TUNEGATE_API_KEY", "TUNEGATE_POLICY_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNEGATE_CACHE_DIR", str(tmp_path / "cache"))


def written(folder: Path, content: bytes) -> str:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    return str(path)


def test_rows_are_counted_by_the_tokens_of_the_base_model(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`What is 0 plus one?` and `It is 1.` are 19 and 8 bytes, so tokens; ChatML adds 20: 4 marks, `user`, `assistant`
    and 3 line ends. The tenth answer has a byte more."""
    path = written(tmp_path, chat_jsonl(10))
    assert run(["files", "validate", path, "--model", str(tiny_base), "-o", "json"], app) == exit_codes.OK
    report = json.loads(capsys.readouterr().out)
    assert report["valid"]
    assert report["tokens"] == {"total": 471, "min": 47, "max": 48, "mean": 47.1, "is_approximate": False}


def test_what_the_chat_template_refuses_has_its_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened_by_the_assistant = b'{"messages": [{"role": "assistant", "content": "Good morning."}]}\n'
    path = written(tmp_path, chat_jsonl(10) + opened_by_the_assistant)
    assert run(["files", "validate", path, "--model", str(tiny_base), "-o", "json"], app) == exit_codes.USAGE
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert [(each["line"], each["field"]) for each in errors] == [(11, "messages[0].role")]


def test_without_a_base_model_tokens_are_estimated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["files", "validate", written(tmp_path, chat_jsonl(10))], app) == exit_codes.OK
    assert "about" in capsys.readouterr().out


def test_a_model_that_is_no_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, chat_jsonl(10))
    (tmp_path / "empty").mkdir()
    for model, told in (
        (str(tmp_path / "empty"), "has no tokenizer.json"),
        ("package://no_such_package", "python package 'no_such_package'"),
    ):
        assert run(["files", "validate", path, "--model", model], app) == exit_codes.USAGE
        assert told in capsys.readouterr().err


def test_a_name_that_is_neither_a_file_nor_an_id_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["files", "validate", "rows.jsonl"], app) == exit_codes.USAGE
    assert "no file here" in capsys.readouterr().err
