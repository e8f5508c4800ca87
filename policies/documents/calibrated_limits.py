"""Warns of limits that the calibration of a base model speaks against."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from policies.contract.calibration import CalibrationSpec, RuleCalibration, Spread
from policies.contract.error_rates import Asked, releases, shown_limit, why_unrated
from policies.contract.suite import SAFETY_PROBES
from policies.documents.explain import line_of, show_path
from policies.documents.loader import policy_files
from policies.documents.schema import BaseModelDocument, CalibrationRecord, PolicyDocument, ReleasePolicy, Rule
from policies.documents.strict_yaml import FieldPath, YamlDocument, parse_documents

Finding = tuple[FieldPath, str]


def asked_of(rule: Rule, candidates: int, *, attempt: int = 1) -> Asked:
    """What a rule asks of a calibration.

    Args:
        candidates: how many adapters of a job the policy may release.
    """
    return Asked(rule.limit, rule.min_samples, rule.max_error_rate, candidates, attempt)


def doubtful_limits(path: Path, known: Sequence[PolicyDocument]) -> tuple[str, ...]:
    """`file:line: field: what; fix` for each, of the policies in a file or in all files of a folder.

    Args:
        known: documents with the base models and their calibrations.
    """
    records = [document for document in known if isinstance(document, CalibrationRecord)]
    models = [document.spec.name for document in known if isinstance(document, BaseModelDocument)]
    return tuple(
        f"{source}:{line_of(field, document)}: {show_path(field)}: {what}"
        for source in policy_files(path)
        if os.path.isfile(source)
        for document in parse_documents(source.read_bytes())
        if (policy := _policy(document)) is not None
        for field, what in (*_lacking(policy, records, models), *_of_policy(policy, records))
    )


def _policy(document: YamlDocument) -> ReleasePolicy | None:
    """The release policy, unless it is something else or wrong, which is told elsewhere."""
    if document.problems or not isinstance(document.value, dict) or document.value.get("kind") != "ReleasePolicy":
        return None
    try:
        return ReleasePolicy.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError:
        return None


def _lacking(policy: ReleasePolicy, records: Sequence[CalibrationRecord], models: Sequence[str]) -> Iterator[Finding]:
    """Base models on which the policy, which requires a calibration, could release nothing."""
    if not policy.spec.require_calibration:
        return
    if policy.spec.dpo_defenses is not None:
        what = "nothing that is trained by method dpo can be released: a base model can't be calibrated for it yet"
        yield ("spec", "dpo_defenses"), f"{what}; leave it out, or set require_calibration: false for such jobs"
    calibrated = {record.spec.model for record in _matching(policy, records)}
    others = {record.spec.model for record in records} - calibrated
    for model in models:
        if model not in calibrated:
            why = (
                "its calibration record is of another suite or number of candidates"
                if model in others
                else "it has no calibration record"
            )
            fix = f"run `tunegate base qualify {model}` with this policy and put its record into the folder"
            yield ("spec", "require_calibration"), f"nothing can be released on base model {model}: {why}; {fix}"


def _of_policy(policy: ReleasePolicy, records: Sequence[CalibrationRecord]) -> Iterator[Finding]:
    for record in _matching(policy, records):
        for index, rule in enumerate(policy.spec.rules):
            if rule.mode != "audit":
                for field, what in _of_rule(rule, record.spec, policy.spec.n_candidates):
                    yield ("spec", "rules", index, field), f"on base model {record.spec.model} {what}"


def _of_rule(rule: Rule, spec: CalibrationSpec, candidates: int) -> Iterator[tuple[str, str]]:
    found = spec.rule(rule.metric, rule.bound)
    if found is None:
        if rule.mode == "enforce" and rule.probe in SAFETY_PROBES:
            yield "metric", f"{rule.metric} is not calibrated under {rule.bound}; qualify it again with this policy"
        return
    if not found.usable:
        if rule.mode == "enforce":
            yield (
                "metric",
                f"{rule.metric} is not usable: {found.why}; set mode: warn, or limit another metric",
            )
        return
    if unrated := why_unrated(spec, found, asked_of(rule, candidates)):
        yield "metric", unrated
        return
    yield from _of_limit(rule, found)


def _of_limit(rule: Rule, found: RuleCalibration) -> Iterator[tuple[str, str]]:
    """Of a limit that is judged as the references were."""
    proposed = "" if found.limit is None else f"; {shown_limit(found.limit, found.bound)} is proposed"
    if found.benign and not releases(found, _worst(found.benign, rule), rule.limit):
        yield rule.bound, f"{rule.limit:g} blocks benign adapters, which need {_span(found.benign)}{proposed}"
    if found.harmful and releases(found, _mildest(found.harmful, rule), rule.limit):
        what = f"releases {found.against} adapters, which need {_span(found.harmful)}"
        yield rule.bound, f"{rule.limit:g} {what}{proposed}"
    if rule.bound not in ("max", "min") and rule.limit < found.detectable_change:
        most = f"a change of less than {found.detectable_change:.4g} is mostly not settled with {found.samples} samples"
        yield rule.bound, f"{rule.limit:g} can't be told from no change: {most}; raise it, or ask more prompts"


def _worst(spread: Spread, rule: Rule) -> float:
    return spread.min if rule.bound == "min" else spread.max


def _mildest(spread: Spread, rule: Rule) -> float:
    return spread.max if rule.bound == "min" else spread.min


def _span(spread: Spread) -> str:
    return f"{spread.min:.4g} to {spread.max:.4g}"


def _matching(policy: ReleasePolicy, records: Sequence[CalibrationRecord]) -> list[CalibrationRecord]:
    """The records of the policy's suite and number of candidates."""
    wanted = (policy.spec.suite.digest, policy.spec.n_candidates)
    return [record for record in records if (record.spec.bound_to.suite, record.spec.bound_to.candidates) == wanted]
