"""`tunegate train`: the same recipe in the foreground, all or nothing."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from policies.cli import exit_codes
from policies.cli.main import COMMANDS_GROUP, build_app, run
from policies.contract.artifacts import digest_tree
from policies.contract.training import TrainingRecord
from tests.trainer.conftest import chat_lines, preference_lines

SMALL = ("--epochs", "2", "--batch-size", "4")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text(chat_lines(12))
    return path


def tunegate(*arguments: object) -> int:
    app = build_app([EntryPoint("train", "trainer.cli.train:app", COMMANDS_GROUP)])
    return run(["train", *map(str, arguments)], app)


def test_stdout_is_the_record_of_the_adapter_in_the_folder(
    tiny_base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    out = tmp_path / "out"
    code = tunegate("--model", tiny_base, "--data", data, "--out", out, "--defense", "kl_penalty", *SMALL, "-o", "json")
    assert code == exit_codes.OK
    record = TrainingRecord.model_validate(json.loads(capsys.readouterr().out))
    assert record.adapter == digest_tree(out / "adapter")
    assert [item.name for item in record.evidence] == ["kl_penalty"]
    assert record == TrainingRecord.model_validate_json((out / "training-record.json").read_bytes())
    assert sorted(path.name for path in out.iterdir()) == ["adapter", "training-record.json"]


def test_dpo_learns_from_preference_rows(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    data = tmp_path / "preferences.jsonl"
    data.write_text(preference_lines(12))
    options = ("--method", "dpo", "--beta", "0.2", "-o", "json")
    code = tunegate("--model", tiny_base, "--data", data, "--out", tmp_path / "out", *SMALL, *options)
    assert code == exit_codes.OK
    record = TrainingRecord.model_validate(json.loads(capsys.readouterr().out))
    assert "rewards/margins" in record.log_history[0]


def test_a_run_that_fails_leaves_nothing_behind(
    tiny_base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data.write_text(json.dumps({"messages": []}))
    folder = tmp_path / "results"
    code = tunegate("--model", tiny_base, "--data", data, "--out", folder / "out", *SMALL)
    assert code == exit_codes.USAGE
    assert "line 1" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--epochs", "0"), "hyperparameters"),
        (("--lr-multiplier", "nan"), "hyperparameters"),
        (("--policy", "baseline", "--defense", "kl_penalty"), "not both"),
        (("--defense", "prayer"), "prayer"),
        (("--beta", "0.1"), "beta belongs to method dpo"),
        (("--method", "dpo", "--beta", "3"), "beta"),
        (("--method", "dpo", "--beta", "high"), "beta"),
        (("--method", "dpo", "--defense", "safe_data_interleaving"), "does not work with method dpo"),
        (("--validation", "/nowhere.jsonl"), "there is no file"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: tuple[str, ...],
    message: str,
) -> None:
    code = tunegate("--model", tiny_base, "--data", data, "--out", tmp_path / "out", *extra)
    assert code == exit_codes.USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
