"""Writes the HTML report of an evaluation that no gateway ran."""

from __future__ import annotations

from pathlib import Path

from evaluator.runner.rescoring import Filed, check_samples
from policies.contract.release import GateDecision
from policies.report.page import render_report


def write_page(target: Path, filed: Filed, decision: GateDecision, *, title: str) -> None:
    """Write the page of a report and the verdict on it.

    Raises:
        IntegrityError: the samples are not the report's.
    """
    samples = check_samples(filed.report, filed.samples)
    page = render_report(title, decision=decision, report=filed.report, policy=filed.policy, samples=samples)
    target.write_text(page, encoding="utf-8")
