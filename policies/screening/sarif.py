"""A screening report as SARIF 2.1.0 (OASIS), which editors and code hosts show beside the lines of the file."""

from __future__ import annotations

from pydantic import JsonValue

from policies.contract.screening import ScreeningFinding, ScreeningReport

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"record": "note", "warn": "warning", "review": "warning", "block": "error"}


def sarif(report: ScreeningReport, uri: str, version: str) -> dict[str, JsonValue]:
    """One run with a result for each row that a finding lists; what was not screened is told as notifications.

    Args:
        uri: of the file, as editors find it.
        version: of the program.
    """
    rules: list[JsonValue] = [
        {"id": each.id, "shortDescription": {"text": each.category}, "properties": {"severity": each.severity}}
        for each in report.findings
    ]
    results: list[JsonValue] = [
        result for index, finding in enumerate(report.findings) for result in _results(finding, index, uri)
    ]
    notes: list[JsonValue] = [
        {"level": "warning", "message": {"text": f"not screened: {each.by}: {each.reason}"}}
        for each in report.screened.not_screened
    ]
    run: dict[str, JsonValue] = {
        "tool": {"driver": {"name": "tunegate", "version": version, "rules": rules}},
        "artifacts": [{"location": {"uri": uri}, "hashes": {"sha-256": report.file_digest.removeprefix("sha256:")}}],
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": results,
        "properties": {"verdict": report.verdict, "rows": report.screened.rows},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _results(finding: ScreeningFinding, index: int, uri: str) -> list[JsonValue]:
    """Without rows, one result about the file as a whole."""
    lines = [each if isinstance(each, int) else each.row for each in finding.rows]
    places: list[dict[str, JsonValue]] = [{"region": {"startLine": line}} for line in lines] or [{}]
    return [
        {
            "ruleId": finding.id,
            "ruleIndex": index,
            "level": _LEVELS[finding.action],
            "message": {"text": finding.message},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, **place}}],
        }
        for place in places
    ]
