"""`tunegate prompts mint`: files that only their owner reads, and a snippet that a policy takes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from evaluator.cli.prompts import app
from evaluator.prompt_minting.minting import mint
from evaluator.prompt_minting.secret_seed import read_seed
from evaluator.prompt_minting.twin_folder import MintingManifest, write_twins
from policies.contract.artifacts import digest_file
from policies.contract.store import ArtifactStore
from policies.contract.suite import EvalSuite
from policies.errors import ConfigurationError

RUNNER = CliRunner()


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "seed"
    path.write_text("0f1e2d3c4b5a69788796a5b4c3d2e1f0" * 2)
    path.chmod(0o600)
    return path


def run(*arguments: object) -> str:
    result = RUNNER.invoke(app, ["prompts", "mint", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def suite_of(folder: Path) -> EvalSuite:
    return EvalSuite.model_validate({"probes": yaml.safe_load((folder / "twin.yaml").read_text())})


def test_the_snippet_is_taken_by_a_policy_and_names_what_was_written(seed: Path, tmp_path: Path) -> None:
    out = tmp_path / "twin sets"
    run("--seed-file", seed, "--out", out)
    twins = [settings.secret_twin for settings in suite_of(out).probes]

    assert len(twins) == 3
    for settings, twin in zip(suite_of(out).probes, twins, strict=True):
        assert twin is not None
        assert twin.pinned == digest_file(out / f"{settings.probe}.jsonl")


def test_only_the_owner_can_read_what_is_written(seed: Path, tmp_path: Path) -> None:
    run("--seed-file", seed, "--out", tmp_path / "out", "--probe", "over_refusal")
    written = sorted((tmp_path / "out").iterdir())

    assert [path.name for path in written] == ["manifest.json", "over_refusal.jsonl", "twin.yaml"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}


@pytest.mark.parametrize(
    ("out", "options", "told"),
    [
        ("file", (), "nothing can be written to"),
        ("file/below", (), "nothing can be written to"),
        ("/proc/none/out", (), "nothing can be written to"),
        ("x" * 300, (), "File name too long"),
        ("out", ("--store", "bogus://here"), "is no artifact store"),
        ("out", ("--store", "/dev/null/store"), "is no artifact store"),
        ("out", ("--store", "/proc/none/store"), "nothing can be put into"),
    ],
)
def test_a_place_that_can_not_be_written_is_refused_before_anything_is(
    seed: Path, tmp_path: Path, out: str, options: tuple[str, ...], told: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=told):
        run("--seed-file", seed, "--out", tmp_path / out, *options)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_a_folder_that_can_not_be_written_whole(seed: Path, tmp_path: Path) -> None:
    """No file system takes the second set's name, of more than 255 bytes."""
    made = mint("over_refusal", read_seed(seed), grammar=None, per_category=1)
    with pytest.raises(ConfigurationError, match="nothing can be written to"):
        write_twins(tmp_path / "out", [made, made._replace(probe="x" * 300)], read_seed(seed), in_store=False)

    assert [path.name for path in tmp_path.iterdir()] == ["seed"]


def test_folder_with_other_files_is_left_as_it_is(seed: Path, tmp_path: Path) -> None:
    run("--seed-file", seed, "--out", tmp_path / "out", "--probe", "over_refusal")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ConfigurationError, match="name a new folder"):
        run("--seed-file", seed, "--out", tmp_path / "out")

    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_seed_gives_the_same_folder_again(seed: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run("--seed-file", seed, "--out", tmp_path / "out", "--probe", "over_refusal")
    manifest = MintingManifest.model_validate_json((tmp_path / "out" / "manifest.json").read_bytes())

    assert manifest.sets[0].n_prompts == 280
    assert manifest.seed not in seed.read_text()


def test_a_folder_of_another_seed_is_left_alone(seed: Path, tmp_path: Path) -> None:
    run("--seed-file", seed, "--out", tmp_path / "out", "--probe", "over_refusal")
    seed.write_text("9" + seed.read_text())

    with pytest.raises(ConfigurationError, match="is another one"):
        run("--seed-file", seed, "--out", tmp_path / "out", "--probe", "over_refusal")


def test_a_set_that_is_put_into_a_store_is_named_by_its_digest(seed: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    run("--seed-file", seed, "--out", tmp_path / "out", "--probe", "over_refusal", "--store", url)
    (settings,) = suite_of(tmp_path / "out").probes

    assert settings.secret_twin is not None
    assert isinstance(settings.secret_twin.prompts, str)
    assert ArtifactStore(url).read_bytes(settings.secret_twin.prompts).count(b"\n") == 280


def test_a_grammar_of_ones_own_is_for_one_probe(seed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name it with --probe"):
        run("--seed-file", seed, "--out", tmp_path / "out", "--grammar", seed)
