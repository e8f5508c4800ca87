"""Looks at rows of the job's files: training rows are shared out, validation rows are all asked at the first look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.gate import Standing
from evaluator.runner.base_cache import BaseCache
from evaluator.runner.probe_run import Bench, ProbeOutcome, run_probe
from evaluator.subject import FileRows, Subject
from policies.contract.sequential import Sequential
from policies.contract.suite import Capability, EvalSuite, InDomain, ProbeSettings
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule

BASE, FILE = "sha256:" + "b" * 64, "sha256:" + "f" * 64
LOOKS = (0.125, 0.25, 0.5, 1.0)
LEARNING = Rule(id="learning", metric="in_domain.loss", max_increase_over_base=0)
RETENTION = Rule(id="retention", metric="capability.accuracy", min=0)
Run = Callable[..., ProbeOutcome]


def file_of(n_rows: int) -> FileRows:
    rows = [
        ChatRow((ChatMessage("user", f"Question {number}?", 0), ChatMessage("assistant", f"Answer {number}.", 1)))
        for number in range(n_rows)
    ]
    return FileRows(FILE, rows)


@pytest.fixture
def run(scripted_backend: Callable[..., Any], tmp_path: Path) -> Run:
    """Runs a probe on an adapter for which every token costs 2 nats, and 3 without it."""

    def run(settings: ProbeSettings, rules: Sequence[Rule], **files: Any) -> ProbeOutcome:  # Any: rows of files
        policy = ReleasePolicy(
            api_version="tunegate/v1",
            kind="ReleasePolicy",
            metadata=Metadata(name="rows", version="1"),
            spec=ReleaseSpec(
                suite=EvalSuite(probes=(settings,), sequential=Sequential(looks=LOOKS)), rules=tuple(rules)
            ),
        )
        backend = scripted_backend(nats=lambda prompt, text, adapter: 2.0 if adapter else 3.0)
        adapter, base = (Subject(backend, adapter=on, seed=1, **files) for on in (True, False))
        cache = BaseCache(tmp_path / "cache")
        return run_probe(settings, Bench(adapter, base, BASE, policy.spec.suite, cache, policy=policy))

    return run


def test_a_clear_gain_in_the_own_domain_needs_an_eighth_of_the_rows(run: Run) -> None:
    """⌈100 / 8⌉ = 13 of the 100 rows; the loss falls by 1 in each."""
    outcome = run(InDomain(), [LEARNING], training=file_of(400))

    assert outcome.standing is Standing.SETTLED
    assert outcome.result.look == 0
    assert outcome.result.measurements[0].n_requested == 13


def test_all_looks_together_ask_every_row_once(run: Run) -> None:
    outcome = run(InDomain(max_rows=20), [LEARNING.model_copy(update={"min_samples": 20})], training=file_of(60))

    assert outcome.result.look == len(LOOKS) - 1
    asked = sorted(int(sample.prompt_id.removeprefix("row-")) for sample in outcome.samples)
    assert [number // 3 for number in asked] == list(range(20))


def test_validation_rows_are_asked_at_the_first_look(run: Run) -> None:
    outcome = run(Capability(), [RETENTION], validation=file_of(12))
    asked = Counter(sample.metric for sample in outcome.samples)

    assert outcome.standing is Standing.SETTLED
    assert outcome.result.look == 0
    assert asked["capability.validation_loss"] == 12
    assert asked["capability.accuracy"] == outcome.result.measurements[0].n_requested < 100


def test_later_looks_ask_no_validation_row_again(run: Run) -> None:
    demanding = RETENTION.model_copy(update={"min_samples": 150})
    outcome = run(Capability(), [demanding], validation=file_of(12))
    asked = Counter((sample.metric, sample.prompt_id) for sample in outcome.samples)

    assert outcome.result.look > 0
    assert set(asked.values()) == {1}
    assert outcome.result.measurements[1].n_requested == 12
