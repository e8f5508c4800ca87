"""Policies of an operator's own, made from a preset."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.policy_catalog import PolicyCatalog
from tests.gateway.conftest import gateway_settings

BOUNDS = ("max", "min", "max_increase_over_base", "max_drop_from_base")


def variant_of_baseline(folder: Path, name: str, **spec: object) -> Path:
    """A policy folder below `folder` with the preset `baseline` as `name`, some keys of its `spec` changed."""
    baseline = PolicyCatalog.load(gateway_settings(folder)).release_policy("baseline")
    document = baseline.model_dump(mode="json", by_alias=True)
    document["metadata"]["name"] = name
    document["spec"] |= spec
    for rule in document["spec"]["rules"]:  # the schema wants exactly one bound, so those not set must be absent
        for bound in BOUNDS:
            if rule[bound] is None:
                del rule[bound]
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    (policies / f"{name}.yaml").write_text(json.dumps(document))
    return policies
