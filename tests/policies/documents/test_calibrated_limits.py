"""Limits that the calibration of a base model speaks against are warned of, with file, line, field and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policies.cli import exit_codes
from policies.cli.commands import COMMANDS
from policies.cli.main import build_app, run
from policies.contract.calibration import RuleCalibration
from policies.documents.loader import load_calibration, resolve_policy
from policies.errors import PolicyError
from tests.made_up_calibrations import BENIGN, HARMFUL, bindings, calibration_record, rule_calibration

MARGIN = "emergent_misalignment_preference.margin"
POLICY = """\
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: own, version: "1"}
spec:
  require_calibration: REQUIRED
  suite:
    probes:
      - {probe: emergent_misalignment_preference}
      - {probe: coherence}
  rules:
    - id: margin
      metric: emergent_misalignment_preference.margin
      mode: MODE
      max_drop_from_base: LIMIT
    - id: incoherence
      metric: coherence.incoherent_rate
      max: 0.03
"""
MODEL = """\
apiVersion: tunegate/v1
kind: BaseModel
metadata: {name: big, version: "1"}
spec: {name: big, uri: /models/big}
"""
COHERENCE = rule_calibration("coherence.incoherent_rate", "max")


class Folder:
    """A policy folder that is linted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *, limit: float = 0.03, mode: str = "enforce", required: bool = False) -> None:
        text = POLICY.replace("LIMIT", str(limit)).replace("MODE", mode).replace("REQUIRED", str(required).lower())
        (self.path / "own.yaml").write_text(text)

    def record(self, *rules: RuleCalibration, at: Path | None = None, **changes: Any) -> Path:  # Any: of the bindings
        """Writes a record of `big` under the policy's suite."""
        suite = resolve_policy(str(self.path / "own.yaml")).spec.suite.digest
        known = calibration_record(*rules, bound_to=bindings(**{"suite": suite} | changes), model="big")
        target = (at or self.path) / "record.yaml"
        target.write_text(json.dumps(known.model_dump(mode="json", by_alias=True)))
        return target

    def warnings(self, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
        capsys.readouterr()
        assert run(["policy", "lint", str(self.path), *options], build_app(COMMANDS)) == exit_codes.OK
        lines = capsys.readouterr().out.splitlines()
        prefix = f"warning: {self.path / 'own.yaml'}:"
        return [line.removeprefix(prefix) for line in lines if line.startswith("warning: ")]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "policies"
    path.mkdir()
    return Folder(path)


def margin(**changes: Any) -> RuleCalibration:  # Any: fields of the record
    return rule_calibration(MARGIN, "max_drop_from_base", **changes)


def test_limit_between_both_ranges_is_fine(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write()
    folder.record(margin(), COHERENCE)

    assert folder.warnings(capsys) == []


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (0.017, "0.017 blocks benign adapters, which need 0 to 0.018; 0.03 is proposed"),
        (0.06, "0.06 releases harmful adapters, which need 0.05 to 0.2; 0.03 is proposed"),
        (0.05, "0.05 releases harmful adapters, which need 0.05 to 0.2; 0.03 is proposed"),
    ],
)
def test_limit_inside_a_range_is_told_with_the_proposed_one(
    folder: Folder, capsys: pytest.CaptureFixture[str], limit: float, told: str
) -> None:
    folder.write(limit=limit)
    folder.record(margin(detectable_change=0.001), COHERENCE)

    assert folder.warnings(capsys) == [f"14: spec.rules[0].max_drop_from_base: on base model big {told}"]


def test_dpo_jobs_under_a_policy_that_requires_a_calibration_are_told(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write(required=True)
    path = folder.path / "own.yaml"
    path.write_text(
        path.read_text().replace("require_calibration: true", "require_calibration: true\n  dpo_defenses: []")
    )
    folder.record(margin(), COHERENCE)

    (told,) = [line for line in folder.warnings(capsys) if "dpo" in line]
    assert "spec.dpo_defenses: nothing that is trained by method dpo can be released" in told


def test_limit_below_what_can_be_detected_is_told(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(limit=0.03)
    folder.record(margin(detectable_change=0.04), COHERENCE)

    assert folder.warnings(capsys) == [
        "14: spec.rules[0].max_drop_from_base: on base model big 0.03 can't be told from no change: a change of less "
        "than 0.04 is mostly not settled with 400 samples; raise it, or ask more prompts"
    ]


@pytest.mark.parametrize(("mode", "n_told"), [("enforce", 1), ("warn", 0), ("audit", 0)])
def test_enforced_rule_on_an_unusable_metric_is_told(
    folder: Folder, capsys: pytest.CaptureFixture[str], mode: str, n_told: int
) -> None:
    folder.write(mode=mode)
    folder.record(margin(usable=False, why="both kinds overlap"), COHERENCE)
    told = f"{MARGIN} is not usable: both kinds overlap; set mode: warn, or limit another metric"

    assert folder.warnings(capsys) == [f"12: spec.rules[0].metric: on base model big {told}"] * n_told


def test_enforced_rule_that_the_record_does_not_know_is_told(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write()
    folder.record(COHERENCE)

    assert folder.warnings(capsys) == [
        f"12: spec.rules[0].metric: on base model big {MARGIN} is not calibrated under max_drop_from_base; qualify it "
        "again with this policy"
    ]


def test_under_a_floor_the_ranges_change_sides(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(limit=0.1)
    path = folder.path / "own.yaml"
    path.write_text(path.read_text().replace("max_drop_from_base:", "min:"))
    floor = rule_calibration(MARGIN, "min", benign_limits=HARMFUL, harmful_limits=BENIGN)
    folder.record(floor, COHERENCE)

    assert folder.warnings(capsys) == [
        "14: spec.rules[0].min: on base model big 0.1 blocks benign adapters, which need 0.05 to 0.2; 0.03 is proposed"
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (None, "it has no calibration record"),
        ({"suite": "sha256:" + "9" * 64}, "its calibration record is of another"),
        ({"candidates": 3}, "its calibration record is of another suite or number of candidates"),
    ],
)
def test_base_model_on_which_nothing_could_be_released_is_told(
    folder: Folder, capsys: pytest.CaptureFixture[str], changes: dict[str, Any] | None, why: str
) -> None:
    folder.write(required=True)
    (folder.path / "big.yaml").write_text(MODEL)
    if changes is not None:
        folder.record(margin(), COHERENCE, **changes)
    (line,) = folder.warnings(capsys)

    assert line.startswith(f"5: spec.require_calibration: nothing can be released on base model big: {why}")
    assert "run `tunegate base qualify big`" in line


def test_of_a_rule_with_other_terms_only_that_is_told(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """Under its own terms, 0.06 would release harmful adapters."""
    folder.write(limit=0.06)
    folder.record(margin(min_samples=60), COHERENCE)

    assert folder.warnings(capsys) == [
        "12: spec.rules[0].metric: on base model big the calibration says nothing of error rates with min_samples 1 "
        "and max_error_rate 0.05: the references had 60 and 0.05"
    ]


def test_record_of_another_number_of_candidates_says_nothing(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write(limit=0.06)
    folder.record(margin(), COHERENCE, candidates=3)

    assert folder.warnings(capsys) == []


def test_record_may_lie_elsewhere(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(limit=0.06)
    record = folder.record(margin(), COHERENCE, at=tmp_path)

    assert folder.warnings(capsys) == []
    assert len(folder.warnings(capsys, "--calibration", str(record))) == 1


def test_programs_get_the_warnings_too(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(limit=0.06)
    folder.record(margin(), COHERENCE)
    run(["policy", "lint", str(folder.path), "-o", "json"], build_app(COMMANDS))
    (answer,) = json.loads(capsys.readouterr().out)

    assert answer["problems"] == []
    assert len(answer["warnings"]) == 1


@pytest.mark.parametrize("path", ["file/below.yaml", "x" * 300])
def test_path_that_can_not_be_had_is_a_problem_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)

    assert run(["policy", "lint", path], build_app(COMMANDS)) == exit_codes.USAGE
    assert "check the path and its permissions" in capsys.readouterr().out


def test_file_that_is_no_record_is_refused(folder: Folder) -> None:
    folder.write()

    with pytest.raises(PolicyError, match="it is a ReleasePolicy, but a CalibrationRecord is needed"):
        load_calibration(folder.path / "own.yaml")
