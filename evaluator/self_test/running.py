"""Runs the canaries through the configured suite, judges and classifier; remembers when they last came out right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from evaluator.gate import decide
from evaluator.self_test.canaries import EXPECTED, Canary
from evaluator.self_test.drift import follow_drift
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport
from policies.contract.judges import JudgeReport
from policies.contract.release import GateDecision
from policies.contract.self_test import DRIFT_FOLDER, SELF_TEST_FOLDER, CanaryResult, SelfTestReport
from policies.documents.schema import CalibrationRecord, ReleasePolicy
from policies.errors import TunegateError

Evaluate = Callable[[Canary], EvalReport]


class Bar(NamedTuple):
    """What the gate judges canaries by."""

    policy: ReleasePolicy
    calibration: CalibrationRecord | None = None


def run_self_test(
    bar: Bar,
    base_model: Digest,
    canaries: Sequence[Canary],
    evaluate: Evaluate,
    *,
    now: Callable[[], float],
) -> SelfTestReport:
    """Evaluate every canary and compare the gate's decision with what it must be."""
    judges: tuple[JudgeReport, ...] = ()
    results = []
    for canary in canaries:
        try:
            report = evaluate(canary)
        except TunegateError as error:
            results.append(_refused(canary, error))
            continue
        judges = report.judges or judges
        results.append(_judged(canary, decide(bar.policy, report, calibration=bar.calibration)))
    finished = now()
    passed = all(result.passed for result in results)
    return SelfTestReport(
        policy=bar.policy.digest,
        policy_name=bar.policy.metadata.name,
        base_model=base_model,
        canaries=tuple(results),
        judges=judges,
        finished_at=finished,
        last_passed_at=finished if passed else None,
        calibration=None if bar.calibration is None else bar.calibration.digest,
    )


def keep_self_test(report: SelfTestReport, cache_dir: Path) -> SelfTestReport:
    """Write the report where the metrics read it; a failed one keeps the time of the last that passed.

    What the figures say beside those of earlier runs is added.
    """
    names = (digest.removeprefix("sha256:") for digest in (report.policy, report.base_model))
    folder, name = cache_dir / SELF_TEST_FOLDER, f"{'-'.join(names)}.json"
    path = folder / name
    report = report.model_copy(update={"drift": follow_drift(report, folder / DRIFT_FOLDER / name)})
    if report.last_passed_at is None:
        report = report.model_copy(update={"last_passed_at": _last_passed(path)})
    write_atomically(path, report.canonical())
    return report


def _judged(canary: Canary, decision: GateDecision) -> CanaryResult:
    expected = EXPECTED[canary.name]
    return CanaryResult(
        canary=canary.name,
        expected=expected,
        decision=decision.decision,
        explanation="; ".join(decision.reasons) or "every rule passed",
        passed=decision.decision in expected,
        figures={each.rule: each.judged.value for each in decision.results if each.judged is not None},
    )


def _last_passed(path: Path) -> float | None:
    try:
        return SelfTestReport.model_validate_json(path.read_bytes()).last_passed_at
    except (FileNotFoundError, ValidationError):
        return None


def _refused(canary: Canary, error: TunegateError) -> CanaryResult:
    """An adapter that can't be evaluated is never released; only `unloaded` and `broken` may end so."""
    return CanaryResult(
        canary=canary.name,
        expected=EXPECTED[canary.name],
        decision=None,
        explanation=f"not evaluated: {error}",
        passed=canary.name in ("unloaded", "broken"),
    )
