"""`tunegate base show` and `base check --record`: what a record says, and whether it is of the base as it is now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from evaluator.base_checks.base_check import check_base
from evaluator.cli.base import app
from evaluator.models.loading import best_dtype, default_device
from policies.cli import exit_codes
from policies.cli.main import run
from policies.contract.calibration import (
    Bindings,
    CalibrationSpec,
    Recipe,
    ReferenceCounts,
    RuleCalibration,
    Spread,
)
from policies.contract.jobs import BaseModelSpec
from policies.documents.base_models import base_model_of
from policies.documents.loader import resolve_policy
from policies.documents.schema import API_VERSION, CalibrationRecord, Metadata, ReleasePolicy

DIGEST = "sha256:" + "1" * 64
SPREAD = Spread(n=20, min=-0.01, median=0.0, max=0.02)


def rule(**changes: object) -> RuleCalibration:
    fields: dict[str, object] = {
        "metric": "emergent_misalignment_preference.margin",
        "bound": "max_drop_from_base",
        "unit": "nats/token",
        "null": None,
        "benign": SPREAD,
        "harmful": SPREAD,
        "standard_error": 0.01,
        "detectable_change": 0.021,
        "samples": 400,
        "samples_needed": None,
        "seconds": 3.0,
        "fits": (),
        "limit": 0.03,
        "false_block_le": 0.05,
        "miss_le": 0.17,
        "confidence": 0.95,
        "usable": True,
    }
    return RuleCalibration.model_validate(fields | changes)


class Bound(NamedTuple):
    """A base model and a record about it."""

    model: Path
    record: CalibrationRecord
    path: Path


def record_of(spec: BaseModelSpec, policy: ReleasePolicy, cache: Path, *rules: RuleCalibration) -> CalibrationRecord:
    check = check_base(spec, cache).check
    assert check.base is not None
    assert check.text is not None
    bound_to = Bindings(
        base_model=check.base,
        text=check.text,
        recipe=Recipe.of(spec, policy.spec.defenses).digest,
        suite=policy.spec.suite.digest,
        probes={},
        instruments={},
        engine="transformers",
        dtype=str(best_dtype(default_device())).removeprefix("torch."),
        versions={"pytest": ".".join(pytest.__version__.split(".")[:2])},
    )
    calibrated = CalibrationSpec(
        model=spec.name,
        bound_to=bound_to,
        references=ReferenceCounts(null=4, benign=20, harmful=18, broken=4, seeds=3),
        runs=DIGEST,
        rules=rules,
        limits_of_validity="Other kinds of harm",
        finished_at=1.0,
    )
    metadata = Metadata(name="tiny", version="1")
    return CalibrationRecord(api_version=API_VERSION, kind="CalibrationRecord", metadata=metadata, spec=calibrated)


def write(record: CalibrationRecord, path: Path) -> Path:
    path.write_text(yaml.safe_dump(record.model_dump(mode="json", by_alias=True)))
    return path


@pytest.fixture
def bound(tiny_base: Path, tmp_path: Path) -> Bound:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    unusable = rule(bound="min", usable=False, why="Nothing can fail")
    spec = base_model_of(str(model), None)
    record = record_of(spec, resolve_policy("baseline"), tmp_path / "cache", rule(), unusable)
    return Bound(model, record, write(record, tmp_path / "record.yaml"))


Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(bound: Bound, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Exit code, and what is found of the record."""

    def check(*options: str) -> tuple[int, list[str]]:
        arguments = ["--record", str(bound.path), "--cache-dir", str(tmp_path / "cache"), "-o", "json", *options]
        code = run(["base", "check", str(bound.model), *arguments], app)
        (found,) = (each for each in json.loads(capsys.readouterr().out) if each["what"] == "record")
        return code, [found["outcome"], found["found"]]

    return check


def test_a_record_of_the_base_as_it_is_works(check: Check) -> None:
    assert check() == (
        exit_codes.OK,
        [
            "works",
            "is of this base model and policy; not usable on this base: emergent_misalignment_preference.margin",
        ],
    )


def test_a_changed_chat_template_is_found(check: Check, bound: Bound) -> None:
    template = bound.model / "chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    code, (outcome, found) = check()
    assert (code, outcome) == (exit_codes.INTEGRITY, "refused")
    assert found.startswith("the model's folder is sha256:")
    assert found.endswith("the tokenizer or the chat template is another one. Qualify the base model again")


def test_another_policy_has_another_suite_and_other_defenses(check: Check) -> None:
    code, (outcome, found) = check("--policy", "strict")
    assert (code, outcome) == (exit_codes.INTEGRITY, "refused")
    assert "LoRA, learning rate or defenses are other ones under policy strict" in found
    assert "policy strict has another suite" in found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"versions": {"torch": "1.0"}}, "torch was 1.0 and is 2."),
        ({"versions": {"no_such_library": "1.0"}}, "no_such_library was 1.0 and is not installed"),
        ({"dtype": "float8"}, "it was measured in float8, and evaluations here run in"),
    ],
)
def test_another_library_or_number_format_is_named(
    check: Check, bound: Bound, change: dict[str, object], told: str
) -> None:
    spec = bound.record.spec
    changed = spec.model_copy(update={"bound_to": spec.bound_to.model_copy(update=change)})
    write(bound.record.model_copy(update={"spec": changed}), bound.path)
    code, (outcome, found) = check()
    assert (code, outcome) == (exit_codes.INTEGRITY, "refused")
    assert told in found


def test_what_a_record_says_is_shown_to_people(bound: Bound, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["base", "show", str(bound.path)], app) == exit_codes.OK
    shown = capsys.readouterr().out
    assert bound.record.digest in shown
    assert "≤ 17.0%" in shown
    assert "emergent_misalignment_preference.margin min is not usable: Nothing can fail" in shown
    assert "Holds for: Other kinds of harm" in shown


def test_rates_are_those_of_the_limit_as_it_is_shown_and_say_of_which_verdicts(
    bound: Bound, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.030004 is shown as 0.03001, at which the mildest harmful adapter is released: 1 of 2, not 0 of 2."""
    limits = (-0.01, 0.02), (0.030006, 0.2)
    benign, harmful = (Spread(n=2, min=each[0], median=each[0], max=each[1]) for each in limits)
    known = rule(limit=0.030004, benign=benign, harmful=harmful, benign_limits=limits[0], harmful_limits=limits[1])
    spec = bound.record.spec
    spec = spec.model_copy(update={"rules": (known,), "bound_to": spec.bound_to.model_copy(update={"candidates": 3})})
    write(bound.record.model_copy(update={"spec": spec}), bound.path)

    assert run(["base", "show", str(bound.path)], app) == exit_codes.OK
    shown = capsys.readouterr().out
    assert "≤ 98.7%" in shown  # P(Bin(2, 0.987) ≤ 1) = 0.025
    assert "of first attempts under policies that release one of 3 adapters of a job" in shown


def test_and_to_programs(bound: Bound, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["base", "show", str(bound.path), "-o", "json"], app) == exit_codes.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["digest"] == bound.record.digest
    assert shown["spec"]["rules"][0]["miss_le"] == 0.17


def test_a_policy_is_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = Path(__file__).parents[3] / "policies" / "presets" / "baseline.yaml"
    assert run(["base", "show", str(policy)], app) == exit_codes.USAGE
    assert "it is a ReleasePolicy, but a CalibrationRecord is needed" in capsys.readouterr().err
