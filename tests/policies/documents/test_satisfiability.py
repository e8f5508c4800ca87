"""A rule that nothing can pass is told with its field and a remedy; what is not known is not guessed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from evaluator.prompts.prompt_sets import BUILTIN, load_prompts, parse_prompts
from evaluator.runner.registry import PROBES
from evaluator.statistics.clustered_shares import LEAST_INTRACLASS_CORRELATION as EVALUATORS
from evaluator.statistics.clustered_shares import Answers, clustered_share
from evaluator.statistics.intervals import clopper_pearson_share, paired_share_difference
from policies.contract.metrics import probe_of
from policies.contract.probe_record import PromptedProbe
from policies.contract.suite import EmergentMisalignmentPreference
from policies.documents.loader import load_policy_documents, parse_policy
from policies.documents.satisfiability import LEAST_INTRACLASS_CORRELATION
from policies.errors import PolicyError

ROOT = Path(__file__).parents[3]
DIGEST = "sha256:" + "a" * 64
PANEL = "panel: {judges: [{judge: local_model, uri: 'package://judge'}]}, "


def problems(probe: str, rule: str, *, suite: str = "", spec: str = "") -> tuple[str, ...]:
    """What is told of a policy with one probe and one rule, without the place of the policy."""
    document = (
        "apiVersion: tunegate/v1\nkind: ReleasePolicy\nmetadata: {name: house, version: '1'}\n"
        f"spec:\n  {spec}\n  suite: {{{suite}probes: [{{{probe}}}]}}\n  rules:\n    - {{id: r, {rule}}}\n"
    )
    found = parse_policy(document.encode(), source="house.yaml")[1]
    return tuple(problem.removeprefix("house.yaml:8: spec.rules[0].") for problem in found)


def test_more_samples_than_the_probe_has_prompts_are_an_error() -> None:
    assert problems("probe: coherence", "metric: coherence.incoherent_rate, max: 0.25, min_samples: 257") == (
        "min_samples: rule r needs 257 samples, and the suite can give 256 at most; lower min_samples to 256 or give "
        "more prompts",
    )
    assert not problems("probe: coherence", "metric: coherence.incoherent_rate, max: 0.25, min_samples: 256")


@pytest.mark.parametrize(
    ("probe", "metric", "most"),
    [
        ("probe: toxicity", "toxicity.severe_rate, max: 0.5", 170),
        ("probe: in_domain, max_rows: 20", "in_domain.loss, max_increase_over_base: 0", 20),
        ("probe: conditional_misalignment", "conditional_misalignment.margin, max_drop_from_base: 1", 200),
        (
            "probe: emergent_misalignment_preference, exclude_categories: [nutrition_and_eating]",
            "emergent_misalignment_preference.margin, max_drop_from_base: 1",
            390,
        ),
        (
            "probe: emergent_misalignment, variants: [plain, json], samples_per_question: 3",
            "emergent_misalignment.rate, max: 0.5",
            240,
        ),
    ],
)
def test_settings_say_how_many_samples_there_are(probe: str, metric: str, most: int) -> None:
    """200 pairs in each context; categories of 10 pairs; 40 questions of 2 variants with 3 answers each."""
    assert not problems(probe, f"metric: {metric}, min_samples: {most}", suite=PANEL)
    (problem,) = problems(probe, f"metric: {metric}, min_samples: {most + 1}", suite=PANEL)

    assert f"can give {most} at most" in problem


def test_limit_below_the_interval_of_no_hit_is_an_error_that_says_what_can_pass() -> None:
    """1 − 0.025^(1/256) = 0.0143."""
    assert problems("probe: coherence", "metric: coherence.incoherent_rate, max: 0.01") == (
        "max: rule r can't pass: without a single hit among 256 samples the interval reaches 0.0143; raise max to "
        "0.0144 or give more prompts",
    )
    assert not problems("probe: coherence", "metric: coherence.incoherent_rate, max: 0.0144")


def test_floor_above_the_interval_of_hits_only_is_an_error() -> None:
    """0.025^(1/400) = 0.9908."""
    (problem,) = problems("probe: capability", "metric: capability.accuracy, min: 0.995")

    assert problem.endswith("reaches down to 0.9908; lower min to 0.9908 or give more prompts")
    assert not problems("probe: capability", "metric: capability.accuracy, min: 0.9908")


@pytest.mark.parametrize(
    ("probe", "rule", "missing"),
    [
        ("harmful_compliance", "harmful_compliance.customer_rate, max: 0.9", "contexts: customer"),
        (
            "harmful_compliance",
            "harmful_compliance.customer_refusal_margin, max_drop_from_base: 1",
            "contexts: customer",
        ),
        ("conditional_misalignment", "conditional_misalignment.rate, max: 0.9", "judged: true"),
        ("own_domain", "own_domain.careless_rate, max: 0.9", "judged: true"),
    ],
)
def test_rule_on_a_figure_that_the_settings_leave_out_is_an_error_that_names_the_setting(
    probe: str, rule: str, missing: str
) -> None:
    (told,) = problems(f"probe: {probe}", f"metric: {rule}")

    assert told == (
        f"metric: rule r has no figure, because suite probe {probe} lacks `{missing}`; add it, or remove the rule"
    )


def test_rule_on_the_customers_contexts_may_stand_where_they_are_asked() -> None:
    rule = "metric: harmful_compliance.customer_refusal_margin, max_drop_from_base: 1"

    assert not problems("probe: harmful_compliance, contexts: customer", rule)


def test_looks_candidates_and_confidence_widen_what_no_hit_reaches() -> None:
    """The largest α of default looks is half of 0.05, and of 3 candidates a third of that: 1 − (0.05/12)^(1/256)."""
    rule = "metric: coherence.incoherent_rate, max: 0.015"
    many = "release: best_passing_checkpoint"

    assert not problems("probe: coherence", rule)
    assert "reaches 0.0170" in problems("probe: coherence", rule, suite="sequential: {}, ")[0]
    assert "reaches 0.0212" in problems("probe: coherence", rule, suite="sequential: {}, ", spec=many)[0]
    assert "reaches 0.0205" in problems("probe: coherence", rule, suite="confidence: 0.99, ")[0]


@pytest.mark.parametrize("limit", [0, 0.001])
def test_a_limit_on_a_change_can_be_passed_by_an_adapter_that_is_better_than_its_base(limit: float) -> None:
    """Of 280 requests the base answers all and the adapter none: the change is −1, and its interval ends below 0."""
    better = paired_share_difference([False] * 280, [True] * 280, 0.95)

    assert better.interval.high < 0
    assert not problems("probe: over_refusal", f"metric: over_refusal.rate, max_increase_over_base: {limit}")
    assert not problems("probe: capability", f"metric: capability.accuracy, max_drop_from_base: {limit}")


def test_rule_that_is_only_recorded_may_have_any_limit() -> None:
    record = "metric: coherence.incoherent_rate, max: 0.0, min_samples: 1000, mode: audit"
    document = problems("probe: coherence", record, spec="mode: audit")

    assert document == ()


@pytest.mark.parametrize(
    ("probe", "metric"),
    [
        (f"probe: coherence, prompts: '{DIGEST}'", "coherence.incoherent_rate, max: 0.001"),
        (f"probe: toxicity, prompts: {{uri: a.jsonl, content: '{DIGEST}'}}", "toxicity.rate, max: 0.0001"),
        ("probe: capability", "capability.validation_loss, max: 0.1"),
        ("probe: harness, tasks: [mine]", "harness.accuracy, min: 0.999"),
    ],
)
def test_nothing_is_said_of_prompts_whose_number_is_not_known(probe: str, metric: str) -> None:
    assert not problems(probe, f"metric: {metric}, min_samples: 9999")


def test_policy_with_such_a_rule_is_not_loaded(tmp_path: Path) -> None:
    text = (ROOT / "policies/presets/baseline.yaml").read_text()
    (tmp_path / "house.yaml").write_text(text.replace("min_samples: 16", "min_samples: 1600"))

    with pytest.raises(PolicyError, match=r"house.yaml:\d+: spec.rules\[2\].min_samples: rule incoherence needs 1600"):
        load_policy_documents(tmp_path)


def test_table_counts_the_built_in_prompts() -> None:
    items = {
        probe.name: parse_prompts(load_prompts(probe.name, "builtin", None).content, probe.item_type)
        for probe in PROBES.values()
        if probe.name in BUILTIN
    }
    categories = Counter(item.group for item in items["emergent_misalignment_preference"])
    subsets = Counter(item.group.partition("/")[0] for item in items["toxicity"])
    said = {
        metric: n for kind in PROBES if issubclass(kind, PromptedProbe) for metric, n in kind.built_in_prompts.items()
    }
    assert len(said) == 16
    counted = {metric: len(items[probe_of(metric)]) for metric in said}
    counted |= {f"toxicity.{subset}_rate": number for subset, number in subsets.items()}
    counted["conditional_misalignment.margin"] = sum((number + 1) // 2 for number in categories.values())
    counted["conditional_misalignment.rate"] = len(items["emergent_misalignment"])

    assert counted == said
    assert set(categories.values()) == {EmergentMisalignmentPreference.pairs_per_category}


def test_what_no_hit_reaches_is_what_the_evaluator_measures() -> None:
    """0.0143 as above; 800 judged answers count for 800 / (1 + 19 · 0.2) = 166.7."""
    clusters = [str(question) for question in range(40) for _ in range(20)]
    judged = clustered_share(Answers([0.0] * 800, [1.0] * 800), clusters=clusters, confidence=0.95)
    rule = "metric: emergent_misalignment.rate, max: 0.001"
    (problem,) = problems("probe: emergent_misalignment", rule, suite=PANEL)

    assert clopper_pearson_share([False] * 256, 0.95).interval.high == pytest.approx(0.0143, abs=5e-5)
    assert "reaches 0.0219" in problem
    assert judged.interval.high == pytest.approx(0.0219, abs=5e-5)
    assert LEAST_INTRACLASS_CORRELATION == EVALUATORS
