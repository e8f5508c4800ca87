"""`tunegate` answers at once: a command is imported when it is called, and nothing heavier with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from policies.cli import exit_codes
from policies.cli.lazy_commands import Command, lazy_group
from policies.cli.main import build_app, run

PRESETS = Path(__file__).parents[3] / "policies" / "presets"
HEAVY = {
    *("gateway.app", "gateway.cli.serve", "trainer.cli.train", "evaluator.cli.evaluate", "evaluator.gate"),
    *("torch", "transformers", "peft", "trl", "numpy", "scipy", "sklearn", "matplotlib", "fsspec"),
    *("openai", "httpx", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "celery", "redis", "jinja2"),
}
PROGRAM = """
import atexit, sys
atexit.register(lambda: print("MODULES", *sys.modules, file=sys.stderr))
from policies.cli.main import main
main()
"""


def tunegate(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """What a process of its own prints, and the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    shown, found, modules = done.stderr.rpartition("MODULES ")
    assert found, done.stderr
    return done.stdout + shown, set(modules.split())


def test_help_lists_all_commands_and_imports_none() -> None:
    shown, modules = tunegate("--help")
    for line in ("evaluate Measure an adapter against", "serve Migrate the database", "policy Check, show"):
        assert line in " ".join(shown.split())
    assert modules & (HEAVY | {"pydantic", "yaml", "policies.cli.policy"}) == set()


def test_lint_imports_only_what_reads_policies() -> None:
    shown, modules = tunegate("policy", "lint", str(PRESETS))
    assert "ok, 3 document(s)" in shown
    assert "pydantic" in modules  # the probe of this test works
    assert modules & (HEAVY | {"rich.console", "asyncio"}) == set()


def test_files_are_converted_without_what_talks_to_a_gateway(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "My tap drips.", "completion": "Close the valve."}\n')
    shown, modules = tunegate("files", "convert", str(path), str(tmp_path / "out.jsonl"))
    assert "1 read, 1 written" in shown
    assert modules & (HEAVY | {"gateway.cli.client", "rich.console", "pyarrow", "datasets"}) == set()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tunegate files con", ["convert"]),
        ("tunegate pol", ["policy"]),
        ("tunegate re", ["rescore"]),
        ("tunegate policy li", ["lint"]),
        ("tunegate policy lint --out", ["--output"]),
    ],
)
def test_shells_complete_commands_and_what_is_below_them(words: str, expected: list[str]) -> None:
    place = str(len(words.split()) - 1)
    shown, modules = tunegate(_TUNEGATE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place)
    assert shown.split() == expected
    assert modules & HEAVY == set()


def test_help_of_a_command_is_the_commands_own() -> None:
    shown, _ = tunegate("policy", "lint", "--help")
    assert "Usage: tunegate policy lint [OPTIONS]" in shown
    assert "List every problem of policy files" in shown


def test_a_mistyped_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    app = build_app([Command("policy", "nowhere:app", "Check."), Command("serve", "nowhere:app", "Serve.")])
    assert run(["polcy"], app) == exit_codes.USAGE
    assert "Did you mean 'policy'?" in capsys.readouterr().err


def test_a_command_whose_package_is_missing_names_the_extra_and_leaves_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fly = Command("fly", "no_such_package.cli:app", "Fly.", "wings")
    policy = Command("policy", "policies.cli.policy:app", "Check, show and describe policy documents.")
    assert run(["fly", "--high"], build_app([fly, policy])) == exit_codes.USAGE
    told = capsys.readouterr().err
    assert "`tunegate fly` needs the Python package no_such_package" in told
    assert "pip install 'tunegate[wings]'" in told
    assert run(["policy", "lint", str(PRESETS)], build_app([fly, policy])) == exit_codes.OK


def test_a_command_of_a_group_is_named_in_full_where_its_package_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = build_app([])
    app.add_typer(
        typer.Typer(cls=lazy_group([Command("fly", "no_such_package:app", "Fly.")]), callback=lambda: None),
        name="birds",
    )
    assert run(["birds", "fly"], app) == exit_codes.USAGE
    assert "`tunegate birds fly` needs the Python package no_such_package" in capsys.readouterr().err


def test_a_group_takes_in_commands_of_other_packages_and_imports_them_when_they_are_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = Command("base", "evaluator.cli.base:app", "Look at base models, and qualify them.")
    fly = Command("fly", "no_such_package:app", "Fly high.", within="base")
    app = build_app([group, fly])
    assert run(["base", "--help"], app) == exit_codes.OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "check Say what works" in shown
    assert "fly Fly high." in shown
    assert run(["base", "fly"], app) == exit_codes.USAGE
    assert "`tunegate base fly` needs the Python package no_such_package" in capsys.readouterr().err
    assert run(["fly"], app) == exit_codes.USAGE


def test_commands_of_two_packages_stand_in_one_group() -> None:
    shown, modules = tunegate("base", "--help")
    assert all(name in shown for name in ("check", "show", "qualify"))
    assert modules & (HEAVY | {"trainer.cli.base"}) == set()
