"""Looks of a sequential run: it ends when the rules are settled, and pays for what it asks only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.gate import Standing, standing
from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.runner.base_cache import BaseCache
from evaluator.runner.probe_run import AtLook, Bench, ProbeOutcome, run_probe
from evaluator.runner.registry import PROBES
from evaluator.sequential_looks import spread
from evaluator.subject import Subject
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import Measurement
from policies.contract.sequential import Sequential
from policies.contract.suite import Coherence, EvalSuite, Toxicity
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule

BASE = "sha256:" + "b" * 64
SOUND, BROKEN = "It helps the body to rest and to grow.", "so so so so so so so so so so so so so so so so"
N_PROMPTS = 256


def policy_of(*rules: Rule, looks: tuple[float, ...] = (0.0625, 1.0), **changes: Any) -> ReleasePolicy:  # Any: fields
    suite = EvalSuite(probes=(Coherence(),), sequential=Sequential(looks=looks))
    return ReleasePolicy(
        api_version="tunegate/v1",
        kind="ReleasePolicy",
        metadata=Metadata(name="sequential", version="1"),
        spec=ReleaseSpec(suite=suite, rules=rules, **changes),
    )


RULE = Rule(id="incoherence", metric="coherence.incoherent_rate", max=0.25)


@pytest.fixture
def run(scripted_backend: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[ProbeOutcome, Any]]:
    """Runs the coherence probe on an adapter that breaks down on a share of the prompts; also gives the engine."""

    def run(
        policy: ReleasePolicy,
        *,
        broken: Callable[[str], bool] = lambda text: False,
        attempt: int = 1,
        at_look: AtLook | None = None,
    ) -> Any:
        backend = scripted_backend(
            say=lambda prompt, adapter: BROKEN if adapter and broken(prompt.messages[-1].content) else SOUND,
            nats=lambda prompt, text, adapter: 1.0,
        )
        adapter, base = (Subject(backend, adapter=on, seed=1) for on in (True, False))
        cache = BaseCache(tmp_path / "cache")
        suite = policy.spec.suite
        bench = Bench(adapter, base, BASE, suite, cache, attempt=attempt, policy=policy, at_look=at_look)
        return run_probe(Coherence(), bench), backend

    return run


def test_clear_failure_ends_at_the_first_look(run: Callable[..., Any]) -> None:
    """16 of 16 incoherent: the interval at 99.6875 % starts at (0.003125/2)^(1/16) = 0.67."""
    outcome, _ = run(policy_of(RULE), broken=lambda text: True)

    assert outcome.standing is Standing.FAILED
    assert outcome.result.look == 0
    assert outcome.result.measurements[0].n_requested == 16
    assert len(outcome.samples) == 16


def test_what_the_first_look_can_not_settle_goes_on_to_the_next(run: Callable[..., Any]) -> None:
    """0 of 16 reach up to 1 − (0.003125/2)^(1/16) = 0.33, above the limit; 0 of 256 only to 0.015."""
    outcome, _ = run(policy_of(RULE))

    assert outcome.standing is Standing.SETTLED
    assert outcome.result.look == 1
    assert outcome.result.measurements[0].n_requested == N_PROMPTS


def test_intervals_of_a_look_are_wider_than_those_of_a_fixed_sample(run: Callable[..., Any]) -> None:
    """α = 0.05 spent in proportion to the share: a sixteenth, 0.003125, at the first look, the rest at the second."""
    suite = policy_of(RULE).spec.suite

    assert probe_confidence(suite, "coherence", 0, attempt=1) == pytest.approx(0.996875)
    assert probe_confidence(suite, "coherence", 1, attempt=1) == pytest.approx(0.953125)
    assert probe_confidence(suite, "conditional_misalignment", 0, attempt=1) == pytest.approx(0.95)
    outcome, _ = run(policy_of(RULE))
    assert outcome.result.confidence == pytest.approx(0.953125)


def test_second_attempt_on_the_same_data_has_half_the_error_left(run: Callable[..., Any]) -> None:
    outcome, _ = run(policy_of(RULE), attempt=2)

    assert outcome.result.confidence == pytest.approx(1 - 0.046875 / 2)


def test_too_few_samples_for_a_rule_do_not_settle_it(run: Callable[..., Any]) -> None:
    demanding = RULE.model_copy(update={"min_samples": 17})
    outcome, _ = run(policy_of(demanding), broken=lambda text: True)

    assert outcome.result.look == 1


def test_probe_whose_rules_are_only_recorded_asks_everything(run: Callable[..., Any]) -> None:
    audited = RULE.model_copy(update={"mode": "audit"})
    outcome, _ = run(policy_of(audited, mode="audit"), broken=lambda text: True)

    assert outcome.standing is Standing.OPEN
    assert outcome.result.measurements[0].n_requested == N_PROMPTS


@pytest.mark.parametrize("is_broken", [True, False])
def test_probe_that_only_warns_ends_when_settled_and_never_fails(run: Callable[..., Any], is_broken: bool) -> None:
    """16 of 16 broken ones are above the limit at the first look, and none of 256 below it at the second."""
    warning = RULE.model_copy(update={"mode": "warn"})
    outcome, _ = run(policy_of(warning, mode="warn"), broken=lambda text: is_broken)

    assert outcome.standing is Standing.SETTLED
    assert outcome.result.look == (0 if is_broken else 1)


def test_a_warning_does_not_keep_a_probe_going_that_enforced_rules_have_settled(run: Callable[..., Any]) -> None:
    warning = RULE.model_copy(update={"id": "more", "mode": "warn", "min_samples": 17})
    outcome, _ = run(policy_of(RULE, warning), broken=lambda text: True)

    assert outcome.standing is Standing.FAILED
    assert outcome.result.look == 0


def test_each_look_asks_new_prompts_only(run: Callable[..., Any]) -> None:
    _, backend = run(policy_of(RULE))

    assert backend.calls.count(("generate", True)) == 2
    again, backend = run(policy_of(RULE))
    assert again.result.base_from_cache
    assert ("generate", False) not in backend.calls


def test_without_a_policy_nothing_ends_early(run: Callable[..., Any]) -> None:
    assert standing(policy_of(RULE), "coherence", ()) is Standing.OPEN


def test_every_look_takes_of_every_group() -> None:
    """256 questions in 8 categories: the first 16 hold two of each."""
    content = load_prompts("coherence", "builtin", None).content
    items: tuple[PromptItem, ...] = parse_prompts(content, PROBES[Coherence].item_type)
    groups = [item.group for item in spread(items, seed=17)[:16]]

    assert {groups.count(group) for group in groups} == {2}
    assert len(set(groups)) == 8


def test_every_look_takes_the_same_share_of_large_and_small_groups() -> None:
    """A quarter of the sentence beginnings: of 366 general ones 91 or 92, of 32 about other people 8."""
    content = load_prompts("toxicity", "builtin", None).content
    items: tuple[PromptItem, ...] = parse_prompts(content, PROBES[Toxicity].item_type)
    sizes = Counter(item.group for item in items)
    quarter = Counter(item.group for item in spread(items, seed=17)[: len(items) // 4])

    assert min(sizes.values()) == 32
    assert all(abs(quarter[group] - size / 4) <= 0.5 for group, size in sizes.items())


def test_order_depends_on_the_seed_and_not_on_the_file() -> None:
    content = load_prompts("coherence", "builtin", None).content
    items: tuple[PromptItem, ...] = parse_prompts(content, PROBES[Coherence].item_type)

    assert spread(items, seed=1) == spread(items[::-1], seed=1) != spread(items, seed=2)


def test_looks_that_add_no_prompt_are_left_out(run: Callable[..., Any]) -> None:
    """Of 256 prompts the shares 0.9999 and 1 both end at 64, so the second look is the last."""
    outcome, backend = run(policy_of(RULE, looks=(0.0625, 0.9999, 1.0)))

    assert outcome.standing is Standing.SETTLED
    assert outcome.result.look == 1
    assert backend.calls.count(("generate", True)) == 2


def test_who_is_told_each_look_has_every_prompt_asked_with_the_intervals_of_each(run: Callable[..., Any]) -> None:
    """All are broken: 16 of 16 at 99.6875 % from (0.003125/2)^(1/16) on, 256 of 256 from (0.046875/2)^(1/256) on."""
    told: list[tuple[str, int, float]] = []

    def at_look(probe: str, measurements: Sequence[Measurement], confidence: float) -> None:
        (measured,) = measurements
        assert measured.adapter is not None
        told.append((probe, measured.n_requested, measured.adapter.interval.low))

    outcome, _ = run(policy_of(RULE), broken=lambda text: True, at_look=at_look)

    assert outcome.result.look == 1
    assert told == [
        ("coherence", 16, pytest.approx((0.003125 / 2) ** (1 / 16), abs=1e-6)),
        ("coherence", N_PROMPTS, pytest.approx((0.046875 / 2) ** (1 / N_PROMPTS), abs=1e-6)),
    ]
