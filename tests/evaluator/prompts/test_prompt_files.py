from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from evaluator.prompts.prompt_files import read_prompt_file
from policies.contract.artifacts import digest_bytes
from policies.contract.probe_record import PromptFile
from policies.errors import EvaluationError, IntegrityError

CONTENT = b'{"id": "1"}\n'
REVISION = "0123456789abcdef" * 2 + "01234567"


def named(uri: str, content: bytes = CONTENT) -> PromptFile:
    return PromptFile(uri=uri, content=digest_bytes(content))


def test_a_local_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_bytes(CONTENT)

    assert read_prompt_file(named(str(tmp_path / "set.jsonl"))) == CONTENT


def test_a_file_of_a_package_is_read() -> None:
    content = files("evaluator").joinpath("prompts", "coherence", "v2.jsonl").read_bytes()

    assert read_prompt_file(named("package://evaluator/prompts/coherence/v2.jsonl", content)) == content


def test_a_downloaded_file_is_read(tmp_path: Path) -> None:
    """A file of a commit that the hub's client has once downloaded is read from its cache, without the network."""
    folder = tmp_path / "hub" / "datasets--owner--name" / "snapshots" / REVISION / "data"
    folder.mkdir(parents=True)
    (folder / "set.jsonl").write_bytes(CONTENT)

    assert read_prompt_file(named(f"hf://owner/name@{REVISION}/data/set.jsonl"), tmp_path) == CONTENT


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_bytes(CONTENT + b"\n")

    with pytest.raises(IntegrityError, match=r"has digest sha256:.* the policy expects sha256:"):
        read_prompt_file(named(str(tmp_path / "set.jsonl")))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("no such file", "can't be read: No such file"),
        ("https://example.org/set.csv", "use hf://, package:// or a local path"),
        ("package://no_such_package/set.csv", "can't be read: No module named"),
        ("package://evaluator/no_such_file", "can't be read"),
        ("package://evaluator", "write package://module/path"),
        ("package://evaluator/../set.csv", "write package://module/path"),
        ("package://eval-uator/set.csv", "write package://module/path"),
        ("hf://owner/name/set.csv", "revision included"),
        ("hf://name@main/set.csv", "revision included"),
        ("hf://owner/name@main", "revision included"),
        ("hf://owner/na..me@main/set.csv", "can't be downloaded"),
    ],
)
def test_a_place_that_gives_nothing_is_an_error(uri: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_prompt_file(named(uri), tmp_path)
