"""What the tests of the deployment read: the repository, the compose file, and the metrics that the code exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.testclient import TestClient

import policies.worker.metrics
from gateway.app import create_app
from gateway.http.operations import operations_app
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from policies.worker.self_test_metrics import SelfTestCollector

ROOT = Path(__file__).parents[2]
Compose = dict[str, Any]  # Any: a YAML document


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def compose() -> Compose:
    document: Compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    return document


@pytest.fixture
def exported_samples(tmp_path: Path) -> set[str]:
    """Names of all samples that gateway and workers can export, as PromQL calls them."""
    assert policies.worker.metrics.RUNS  # importing it registers the workers' metrics
    url = f"sqlite:///{tmp_path}/gateway.db"
    upgrade(url)
    settings = GatewaySettings(
        database_url=url,
        store_url=f"file://{tmp_path}/store",
        trainer_token=SecretStr("t" * 40),
        evaluator_token=SecretStr("e" * 40),
    )
    app = create_app(settings)
    with TestClient(app) as client:
        client.get("/healthz")  # the first request makes the metrics of requests
    with TestClient(operations_app(app)) as client:
        scraped = client.get("/metrics", headers={"accept": "text/plain"}).text
    families = [*text_string_to_metric_families(scraped), *REGISTRY.collect(), *SelfTestCollector(Path()).collect()]
    kinds = {family.name: family.type for family in families if family.name.startswith("tunegate_")}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in kinds.items() for suffix in suffixes.get(kind, ("",))}
