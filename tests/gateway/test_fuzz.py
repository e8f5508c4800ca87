"""A short run of Schemathesis, the same each time; `make fuzz` is the long one."""

from __future__ import annotations

from tests.gateway.databases import Databases
from tests.gateway.fuzz import fuzz, populated_gateway

OPTIONS = ("--phases", "fuzzing,stateful", "--max-examples", "4", "--generation-deterministic", "--no-shrink")


def test_the_api_does_what_its_description_says(databases: Databases) -> None:
    with populated_gateway(databases) as (gateway, key):
        report = fuzz(gateway, key, *OPTIONS)
    assert report.n_cases >= 80
    assert (report.failures, report.errors) == ((), ()), report.output
