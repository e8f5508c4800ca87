"""The JSON Schema that editors use: valid, documented, and at one with the loader about the presets."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from policies.contract.metrics import METRICS
from policies.documents.loader import document_schema

PRESETS = sorted(entry.name for entry in files("policies.presets").iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Any:  # Any: what YAML holds
    return yaml.safe_load((files("policies.presets") / name).read_text())


def test_there_are_presets_to_check() -> None:
    assert len(PRESETS) == 3


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(document_schema())


@pytest.mark.parametrize("name", PRESETS)
def test_it_accepts_the_presets(name: str) -> None:
    Draft202012Validator(document_schema()).validate(load_preset(name))


def test_it_refuses_an_unknown_key() -> None:
    document = load_preset("baseline.yaml")
    document["spec"]["mod"] = "enforce"
    assert not Draft202012Validator(document_schema()).is_valid(document)


def test_it_lists_the_metrics() -> None:
    metrics = [metric for metrics in METRICS.values() for metric in metrics]
    assert document_schema()["$defs"]["Rule"]["properties"]["metric"]["enum"] == metrics


def test_it_explains_fields() -> None:
    assert document_schema()["$defs"]["Rule"]["properties"]["max_drop_from_base"]["description"]
