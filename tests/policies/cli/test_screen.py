"""`tunegate files screen`: what a file here holds, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policies.cli import exit_codes
from policies.cli.lazy_commands import Command
from policies.cli.main import build_app, run

APP = build_app([Command("screen", "policies.cli.screen:app", "")])
TOKEN = "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"
"""GitHub's published example; it opens nothing."""


def written(folder: Path, *answers: str) -> str:
    path = folder / "rows.jsonl"
    rows = [[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": each}] for each in answers]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return str(path)


def test_clean_file_ends_well_and_says_what_was_not_screened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["screen", written(tmp_path, "Because.")], APP) == exit_codes.OK
    out = capsys.readouterr().out
    assert "clean: 1 rows screened by secrets, pii, near_duplicates" in out
    assert "not screened: guard:" in out


def test_file_to_block_ends_with_1_and_its_text_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["screen", written(tmp_path, "Because.", f"Use {TOKEN}")], APP) == 1
    out = capsys.readouterr().out
    assert "secrets.github-token" in out
    assert TOKEN not in out


def test_json_is_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["screen", written(tmp_path, f"Use {TOKEN}"), "-o", "json"], APP)
    report = json.loads(capsys.readouterr().out)
    assert (report["object"], report["verdict"], report["file"]) == ("guardrail.screening", "block", "rows.jsonl")
    assert report["findings"][0]["rows"] == [1]


def test_sarif_has_what_the_schema_requires_and_points_at_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SARIF 2.1.0 requires version and runs, of a run tool.driver.name, of a result message, of an invocation
    executionSuccessful, and of a notification message."""
    path = written(tmp_path, "Because.", f"Use {TOKEN}")
    run(["screen", path, "-o", "sarif"], APP)
    log = json.loads(capsys.readouterr().out)
    assert log["version"] == "2.1.0"
    (sarif_run,) = log["runs"]
    assert sarif_run["tool"]["driver"]["name"] == "tunegate"
    (result,) = sarif_run["results"]
    assert (result["ruleId"], result["level"]) == ("secrets.github-token", "error")
    assert result["message"]["text"]
    assert sarif_run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]) == (path, {"startLine": 2})
    (invocation,) = sarif_run["invocations"]
    assert invocation["executionSuccessful"] is True
    assert all(note["message"]["text"] for note in invocation["toolExecutionNotifications"])
    assert len(sarif_run["artifacts"][0]["hashes"]["sha-256"]) == 64


def test_policy_of_the_operator_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from policies.documents.loader import resolve_policy

    document = resolve_policy("baseline").model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"]["screening"] = [{"screen": "secrets", "action": "warn"}, {"screen": "toxicity", "action": "warn"}]
    (tmp_path / "own.yaml").write_text(json.dumps(document))
    path = written(tmp_path, f"Use {TOKEN}")
    assert run(["screen", path, "--policy", str(tmp_path / "own.yaml"), "-o", "json"], APP) == exit_codes.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["findings"][0]["action"]) == ("review", "warn")


def test_policy_that_screens_nothing_leaves_the_usual_rules_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, f"Use {TOKEN}")
    assert run(["screen", path, "--policy", "baseline"], APP) == 1
    assert "judged by the usual rules" in capsys.readouterr().out
    run(["screen", path, "--policy", "baseline", "-o", "json"], APP)
    assert json.loads(capsys.readouterr().out)["policy"] == {"digest": None, "rules": "usual"}


def test_file_without_a_row_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("")
    assert run(["screen", str(path)], APP) != exit_codes.OK
    assert "holds no training row" in capsys.readouterr().err


def test_line_that_is_no_row_is_refused_with_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(written(tmp_path, "Because."))
    path.write_text(path.read_text() + "not a row\n")
    assert run(["screen", str(path)], APP) != exit_codes.OK
    assert "lines 2" in capsys.readouterr().err


def test_policy_that_asks_for_it_has_rows_found_that_hold_prompts_of_its_suite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from policies.documents.loader import resolve_policy
    from policies.overlap.built_in_prompts import BUILTIN, read_built_in

    document = resolve_policy("baseline").model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"]["screening"] = [{"screen": "probe_overlap", "action": "block", "max_rows": 0}]
    (tmp_path / "own.yaml").write_text(json.dumps(document))
    asked = json.loads(read_built_in(*BUILTIN["emergent_misalignment_preference"]).splitlines()[0])
    path = written(tmp_path, "Because.", asked["aligned"])
    assert run(["screen", path, "--policy", str(tmp_path / "own.yaml"), "-o", "json"], APP) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(each["id"], each["rows"]) for each in report["findings"]] == [("probe_overlap", [2])]
    assert report["screened"]["by"] == ["probe_overlap"]
