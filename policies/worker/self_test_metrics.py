"""Tells Prometheus when self-tests last ran and passed; `tunegate evaluate --self-test` leaves the reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import ValidationError

from policies.contract.self_test import SELF_TEST_FOLDER, SelfTestReport

log = structlog.get_logger()


class SelfTestCollector(Collector):
    """Gauges of all policies and base models with a self-test below the cache folder; 0 seconds for never passed."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / SELF_TEST_FOLDER

    def collect(self) -> Iterator[GaugeMetricFamily]:
        latest, labels = self._latest(), ["policy", "base_model"]
        passed = GaugeMetricFamily("tunegate_self_test_passed", "Whether the last self-test passed", labels=labels)
        last = GaugeMetricFamily(
            "tunegate_self_test_last_passed_timestamp_seconds", "When a self-test last passed", labels=labels
        )
        drift = GaugeMetricFamily(
            "tunegate_self_test_drift_e_value", "Highest e-value against figures of before", labels=labels
        )
        for (name, base), report in latest.items():
            if report.drift is not None:
                drift.add_metric([name, base], report.drift.e_value)
            passed.add_metric([name, base], float(report.passed))
            last.add_metric([name, base], report.last_passed_at or 0.0)
        yield from (passed, last, drift)

    def _latest(self) -> dict[tuple[str, str], SelfTestReport]:
        """The last report of each policy by name, on each base; versions before it don't count any more."""
        latest: dict[tuple[str, str], SelfTestReport] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                report = SelfTestReport.model_validate_json(path.read_bytes())
            except ValidationError:
                log.warning("self_test_unreadable", file=path.name)
                continue
            key = report.policy_name, report.base_model.removeprefix("sha256:")[:12]
            known = latest.get(key)
            if known is None or known.finished_at < report.finished_at:
                latest[key] = report
        return latest
