"""Dashboard and alerts speak of metrics that the code exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOREIGN = {"up"}
"""Exported by Prometheus itself."""
KEYWORDS = {"and", "or", "unless", "bool", "offset"}
LABEL_PARTS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)")
NAME = re.compile(r"[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()")


def used_metrics(expression: str) -> set[str]:
    """Names in a PromQL expression that are neither functions, labels nor keywords."""
    return set(NAME.findall(LABEL_PARTS.sub(" ", expression))) - KEYWORDS


def dashboard_expressions(root: Path) -> list[str]:
    dashboard = json.loads((root / "deploy/grafana/dashboards/tunegate.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def alert_rules(root: Path) -> Iterator[dict[str, Any]]:  # Any: a YAML document
    for group in yaml.safe_load((root / "deploy/prometheus/alerts.yml").read_text())["groups"]:
        yield from group["rules"]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (phase) (rate(a_total{phase="x"}[5m])) > 0.5 and on() b == 0', {"a_total", "b"}),
        ("(sum(increase(c_count[1h])) or vector(0)) == 0", {"c_count"}),
    ],
)
def test_names_are_found_in_an_expression(expression: str, names: set[str]) -> None:
    assert used_metrics(expression) == names


def test_dashboard_uses_only_exported_metrics(root: Path, exported_samples: set[str]) -> None:
    expressions = dashboard_expressions(root)
    used = set().union(*map(used_metrics, expressions))
    assert len(expressions) >= 20
    assert used - exported_samples - FOREIGN == set()


def test_alerts_use_only_exported_metrics(root: Path, exported_samples: set[str]) -> None:
    rules = list(alert_rules(root))
    used = set().union(*(used_metrics(rule["expr"]) for rule in rules))
    assert len(rules) >= 10
    assert used - exported_samples - FOREIGN == set()


def test_each_alert_says_what_to_do(root: Path) -> None:
    for rule in alert_rules(root):
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert len(rule["annotations"]["runbook"]) > 50, rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alerts_fire_when_they_must(root: Path) -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts.test.yml"], cwd=root / "deploy/prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_scrape_targets_are_services_and_their_ports(root: Path, compose: dict[str, Any]) -> None:
    jobs = yaml.safe_load((root / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    static = [target for job in jobs for config in job.get("static_configs", []) for target in config["targets"]]
    found = [(config["names"][0], config["port"]) for job in jobs for config in job.get("dns_sd_configs", [])]
    targets = [(name, int(port)) for name, port in (target.split(":") for target in static)] + found
    inside = [(name, port) for name, port in targets if name != "localhost"]
    assert len(inside) == 4
    for name, port in inside:
        assert str(port) in compose["services"][name]["expose"]


def test_dashboard_reads_the_provisioned_datasource(root: Path) -> None:
    provisioning = root / "deploy/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"][0]
    dashboard = json.loads((root / "deploy/grafana/dashboards/tunegate.json").read_text())
    uids = {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"}
    assert uids == {source["uid"]}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
