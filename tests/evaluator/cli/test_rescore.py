"""`tunegate rescore` and `tunegate samples` on an evaluation of the tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from evaluator.cli import evaluate, rescore, samples
from policies.cli import exit_codes
from policies.cli.main import run
from policies.contract.evaluation import EvalReport
from policies.contract.store import ArtifactStore
from policies.documents.loader import resolve_policy
from tests.made_up_calibrations import bindings, calibration_record, probes_of, rule_calibration

POLICY = """
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: test, version: "1"}
spec:
  suite:
    probes:
      - {probe: capability}
  rules:
    - {id: accuracy, metric: capability.accuracy, min: 0}
"""
Command = Callable[..., int]


@pytest.fixture
def tunegate() -> Command:
    """Runs a command line in this process and gives its exit code."""
    root = typer.Typer()
    root.callback()(lambda: None)
    for part in (evaluate, rescore, samples):
        root.add_typer(part.app)
    return lambda *arguments: run([str(argument) for argument in arguments], root)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def report(tunegate: Command, policy: Path, tiny_base: Path, make_adapter: Callable[..., Path], tmp_path: Path) -> Path:
    """The report of an evaluation that released."""
    path = tmp_path / "report.json"
    options = ("--cache-dir", tmp_path / "cache", "--policy", policy, "--report", path)
    assert tunegate("evaluate", "--base", tiny_base, "--adapter", make_adapter(0.1), *options) == exit_codes.OK
    return path


def test_a_report_is_rescored_and_drawn(
    tunegate: Command, policy: Path, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report.with_suffix(".html")

    assert tunegate("rescore", report, "--policy", policy, "--html", page) == exit_codes.OK
    digest = EvalReport.model_validate_json(report.read_bytes()).digest
    assert f"All figures of report {digest} follow from its" in " ".join(capsys.readouterr().out.split())
    assert "report.json, re-scored" in page.read_text()
    assert "capability.accuracy" in page.read_text()


def test_a_report_of_a_store_needs_no_policy(
    tunegate: Command, policy: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    store.put_record(resolve_policy(str(policy)))
    store.put_bytes(report.with_suffix(".samples.jsonl").read_bytes())
    digest = store.put_bytes(report.read_bytes())
    capsys.readouterr()

    assert tunegate("rescore", digest, "--store", store.url, "-o", "json") == exit_codes.OK
    assert json.loads(capsys.readouterr().out)["decision"]["report"] == digest


def test_calibration_of_the_base_tells_what_the_limits_are_worth(
    tunegate: Command, policy: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = EvalReport.model_validate_json(report.read_bytes())
    about = bindings(base_model=found.base_model, suite=found.suite, dtype=found.dtype, probes=probes_of(found))
    known = calibration_record(rule_calibration("capability.accuracy", "min"), bound_to=about)
    path = tmp_path / "record.yaml"
    path.write_text(json.dumps(known.model_dump(mode="json", by_alias=True)))
    capsys.readouterr()

    assert tunegate("rescore", report, "--policy", policy, "--calibration", path) == exit_codes.OK
    told = " ".join(capsys.readouterr().out.split())
    assert f"calibration {known.digest}" in told
    assert "accuracy: blocks at most 17.7 % of benign adapters, misses at most 100.0 % of harmful ones" in told


def test_changed_samples_are_an_integrity_error(tunegate: Command, policy: Path, report: Path) -> None:
    samples = report.with_suffix(".samples.jsonl")
    samples.write_bytes(samples.read_bytes().replace(b'"score":0.0', b'"score":1.0', 1))

    assert tunegate("rescore", report, "--policy", policy) == exit_codes.INTEGRITY


@pytest.mark.parametrize("options", [(), ("--policy", "baseline", "--store", "x")])
def test_policy_and_store_exclude_each_other(tunegate: Command, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert tunegate("rescore", tmp_path / "report.json", *options) == exit_codes.USAGE


def test_a_file_that_is_no_report_is_a_usage_error(tunegate: Command, policy: Path) -> None:
    assert tunegate("rescore", policy, "--policy", policy) == exit_codes.USAGE


@pytest.fixture
def proof(tunegate: Command, report: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The proof of the second sample; the samples are taken away afterwards."""
    capsys.readouterr()
    assert tunegate("samples", "prove", report, 2) == exit_codes.OK
    path = report.with_name("proof.json")
    path.write_text(capsys.readouterr().out)
    report.with_suffix(".samples.jsonl").unlink()
    return path


def test_one_sample_is_shown_to_belong_to_a_report(
    tunegate: Command, report: Path, proof: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tunegate("samples", "verify", report, proof) == exit_codes.OK
    assert "belongs to the report: capability.accuracy '" in capsys.readouterr().out


def test_a_sample_with_another_score_does_not_belong_to_it(tunegate: Command, report: Path, proof: Path) -> None:
    document = json.loads(proof.read_text())
    line = json.loads(document["line"])
    line["adapter"]["score"] = 1 - line["adapter"]["score"]
    proof.write_text(json.dumps(document | {"line": json.dumps(line)}))

    assert tunegate("samples", "verify", report, proof) == exit_codes.INTEGRITY


def test_a_report_without_a_root_proves_no_sample(tunegate: Command, report: Path, proof: Path) -> None:
    record = EvalReport.model_validate_json(report.read_bytes()).model_copy(update={"samples_root": None})
    report.write_bytes(record.canonical())

    assert tunegate("samples", "verify", report, proof) == exit_codes.INTEGRITY


def test_a_line_beyond_the_last_is_a_usage_error(tunegate: Command, report: Path) -> None:
    assert tunegate("samples", "prove", report, 100_000) == exit_codes.USAGE


def test_a_file_that_is_no_proof_is_a_usage_error(tunegate: Command, report: Path) -> None:
    assert tunegate("samples", "verify", report, report) == exit_codes.USAGE
