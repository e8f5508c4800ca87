"""Seeds: secret enough, and readable by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.prompt_minting.secret_seed import Draws, read_seed, seed_id
from policies.errors import ConfigurationError

HEX = "6fe1" * 3 + "02b8c4d97a5f" * 5


@pytest.fixture
def seed_file(tmp_path: Path) -> Path:
    path = tmp_path / "seed"
    path.write_text(HEX + "\n")
    path.chmod(0o600)
    return path


def test_a_seed_is_read_without_its_line_end(seed_file: Path) -> None:
    assert read_seed(seed_file) == HEX.encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_seed_that_others_may_read_is_refused(seed_file: Path, mode: int) -> None:
    seed_file.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_seed(seed_file)


@pytest.mark.parametrize("content", ["", "short", HEX[:31], "a" * 64, "ab" * 32, "x" * 5000])
def test_a_seed_that_can_be_guessed_is_refused(seed_file: Path, content: str) -> None:
    seed_file.write_text(content)
    with pytest.raises(ConfigurationError, match="holds no secret"):
        read_seed(seed_file)


def test_a_missing_seed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_seed(tmp_path / "nothing")


def test_the_name_of_a_seed_is_not_the_seed() -> None:
    assert seed_id(HEX.encode()) == seed_id(HEX.encode())
    assert seed_id(HEX.encode()) not in HEX
    assert seed_id(HEX.encode()) != seed_id(HEX.encode()[::-1])


def test_draws_depend_on_seed_scope_and_name() -> None:
    drawn = {
        Draws(seed, scope).number(name, 1 << 64) for seed in (b"a" * 32, b"b" * 32) for scope in "xy" for name in "nm"
    }
    assert len(drawn) == 8


def test_a_sample_holds_no_value_twice() -> None:
    assert sorted(Draws(b"a" * 32, "x").sample("n", range(10), 10)) == list(range(10))
