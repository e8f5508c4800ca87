"""`tunegate train`: the same recipe in the foreground, all or nothing."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from policies.cli import exit_codes
from policies.cli.main import build_app, run
from policies.contract.artifacts import digest_file, digest_tree
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelRef, BaseModelSpec, JobSpec, LoraSettings, TrainerSettings
from policies.contract.training import TrainingRecord
from policies.documents.loader import resolve_policy
from tests.trainer.conftest import chat_lines, preference_lines
from trainer.cli.commands import COMMANDS

SMALL = ("--epochs", "2", "--batch-size", "4")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text(chat_lines(12))
    return path


def tunegate(*arguments: object) -> int:
    return run(["train", *map(str, arguments)], build_app(COMMANDS))


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


def test_the_whole_recipe_of_a_base_model_document_is_trained_by(
    tiny_base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No field of the document has its default here, so a record of the expected spec's digest has lost none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    base = BaseModelSpec(
        name="mine",
        uri=str(tiny_base),
        revision="main",
        unaligned=BaseModelRef(name="before", uri=str(tiny_base)),
        lora=LoraSettings(rank=2),
        trainer=TrainerSettings(gradient_checkpointing="on"),
        base_learning_rate=1e-3,
        max_sequence_tokens=512,
        checkpoint_every_steps=7,
        date=datetime.date(2026, 2, 3),
        hub_id="owner/mine",
        chat_template=(tiny_base / "chat_template.jinja").read_text(),
    )
    assert base.model_fields_set == set(BaseModelSpec.model_fields)
    head = {"apiVersion": "tunegate/v1", "kind": "BaseModel", "metadata": {"name": "mine", "version": "1"}}
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "mine.yaml").write_text(json.dumps(head | {"spec": base.model_dump(mode="json")}))
    options = ("--policy-dir", folder, "--out", tmp_path / "out", *SMALL, "-o", "json")
    assert tunegate("--model", "mine", "--data", data, *options) == exit_codes.OK
    policy = resolve_policy("baseline", None)
    expected = JobSpec(
        job_id="foreground",
        base_model=base,
        training_file=digest_file(data),
        hyperparameters=Hyperparameters(n_epochs=2, batch_size=4),
        seed=0,
        suite=policy.spec.suite,
        policy=policy.digest,
    )
    assert TrainingRecord.model_validate(json.loads(capsys.readouterr().out)).spec == expected.digest


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
