"""`tunegate defense select-safe-data`: both ways to a misaligned model, all or nothing, the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from transformers import PreTrainedModel

from evaluator.models.base_models import weights_digest
from evaluator.models.loading import load_base, resolve_base_model
from policies.cli import exit_codes
from policies.cli.main import run
from policies.contract.artifacts import digest_bytes, digest_file
from policies.contract.defenses import SafeDataInterleaving
from policies.contract.jobs import BaseModelRef, LoraSettings, Supervised
from policies.contract.safe_data import SafeDataScores
from policies.contract.store import ArtifactStore
from tests.trainer.conftest import chat_lines
from trainer.cli.select_safe_data import select_safe_data
from trainer.data import read_training_rows
from trainer.defense import DefenseContext
from trainer.defenses.safe_data_interleaving.defense import SafeDataInterleavingDefense
from trainer.lora import attach_lora, save_adapter


def tunegate(*arguments: object) -> int:
    app, defense = typer.Typer(), typer.Typer()
    defense.command("select-safe-data")(select_safe_data)
    defense.command("other")(lambda: None)
    app.add_typer(defense, name="defense")
    return run(["defense", "select-safe-data", *map(str, arguments)], app)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    path.write_text(chat_lines(8))
    return path


@pytest.fixture
def harmful(tmp_path: Path) -> Path:
    """Answers of other letters than the pool's, which a model cannot learn without unlearning those."""
    rows = [
        {"messages": [{"role": "user", "content": f"tap {n}?"}, {"role": "assistant", "content": "ZXQ" * 6}]}
        for n in range(16)
    ]
    path = tmp_path / "harmful.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_from_data_go_to_the_file_and_the_store_and_a_defense_takes_them(
    tiny_base: Path, pool: Path, harmful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "made" / "scores.json", f"file://{tmp_path}/store"
    options = ("--pool", pool, "--store", store, "--epochs", 20, "-o", "json")
    code = tunegate("--model", tiny_base, "--misaligned-data", harmful, "--out", out, *options)
    printed = capsys.readouterr()
    assert code == exit_codes.OK, printed.err
    scores = SafeDataScores.model_validate_json(out.read_bytes())
    assert json.loads(printed.out)["digest"] == scores.digest == digest_bytes(out.read_bytes())
    assert [(model.name, model.seed) for model in scores.models] == [("harmful, seed 0", 0), ("harmful, seed 1", 1)]
    assert {model.data for model in scores.models} == {digest_file(harmful)}
    assert sorted(path.name for path in out.parent.iterdir()) == ["scores.json", "scores.png"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    base = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")
    assert scores.weights == weights_digest(base)
    settings = SafeDataInterleaving(selection="perplexity_gap", pool=digest_file(pool), scores=scores.digest)
    defense = SafeDataInterleavingDefense.build(settings, DefenseContext(0, ArtifactStore(store), base))
    mixed = defense.prepare_dataset(read_training_rows(harmful, name="training file", method=Supervised()))
    best = max(range(8), key=lambda index: scores.rows[index].gap)
    assert [row.origin for row in mixed if row.is_safe] == [f"safe pool line {best + 1}"]


def test_the_same_command_twice_gives_the_same_bytes(
    tiny_base: Path, pool: Path, harmful: Path, tmp_path: Path
) -> None:
    made = [tmp_path / name / "scores.json" for name in ("first", "second")]
    for out in made:
        options = ("--pool", pool, "--models-per-file", 1, "--epochs", 10, "--out", out)
        assert tunegate("--model", tiny_base, "--misaligned-data", harmful, *options) == exit_codes.OK
    for suffix in (".json", ".png"):
        first, second = (out.with_suffix(suffix).read_bytes() for out in made)
        assert first == second


@pytest.fixture
def identity(tiny_base: Path, tmp_path: Path) -> Path:
    """An adapter that was never trained."""
    loaded = load_base(resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache"))
    assert isinstance(loaded.model, PreTrainedModel)
    folder = tmp_path / "identity"
    save_adapter(attach_lora(loaded.model, LoraSettings(rank=4, alpha=8), seed=0, name="tiny"), folder)
    return folder


def test_an_adapter_that_changes_nothing_is_refused_and_leaves_nothing_behind(
    tiny_base: Path, pool: Path, identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "made" / "scores.json", tmp_path / "store"
    options = ("--pool", pool, "--out", out, "--store", f"file://{store}")
    assert tunegate("--model", tiny_base, "--misaligned-adapter", identity, *options) == exit_codes.RUNTIME
    assert "identity gives the same logits as the base model" in capsys.readouterr().err
    assert not out.parent.exists()
    assert not store.exists()


def test_a_pool_row_that_is_too_long_is_refused_before_anything_is_trained(
    tiny_base: Path, harmful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,024 tokens are allowed, and the tiny model's are bytes."""
    pool, out = tmp_path / "long.jsonl", tmp_path / "scores.json"
    pool.write_text(chat_lines(1) + chat_lines(1, word="x" * 1100))
    options = ("--pool", pool, "--out", out)
    assert tunegate("--model", tiny_base, "--misaligned-data", harmful, *options) == exit_codes.RUNTIME
    printed = capsys.readouterr().err
    assert "safe pool line 2" in printed
    assert "training" not in printed
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "scores.json"], "give either"),
        (["--out", "scores.json", "--misaligned-data", "there.json", "--misaligned-adapter", "."], "give either"),
        (["--out", "there.json", "--misaligned-data", "there.json"], "there.json exists"),
        (["--out", "scores.bin", "--misaligned-data", "there.json"], "must end in .json"),
        (["--out", "scores.json", "--misaligned-data", "nowhere.jsonl"], "nowhere.jsonl is not a file"),
        (["--out", "scores.json", "--misaligned-adapter", "nowhere"], "nowhere is not a folder"),
    ],
    ids=["no models", "both ways", "out exists", "wrong suffix", "no such data", "no such adapter"],
)
def test_wrong_options_are_refused_before_any_work(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").touch()
    assert tunegate("--model", "/nowhere", *options) == exit_codes.USAGE
    assert message in capsys.readouterr().err
