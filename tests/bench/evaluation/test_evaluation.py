"""The bench of the evaluator: it runs on a tiny model, and its figures are right by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.evaluation.__main__ import DATA, FAIL, PASS, TRAINED_ON, _verdict_bars, main
from bench.evaluation.case_adapters import Case, few_pairs, preference_limit, scale_at, scaled
from bench.evaluation.generation_speed import BATCHED, OURS, PLAIN, _row
from bench.evaluation.verdicts import FIXED, SEQUENTIAL, CaseSettings, Verdict, _deciding
from evaluator.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from policies.contract.release import Decision, GateDecision, RuleResult
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError

NOTHING = "sha256:" + "0" * 64


def verdict(case: str, way: str, decision: str, samples: dict[str, int], *, deciding: tuple[str, ...]) -> Verdict:
    return Verdict(case, way, decision, 1.0, samples, deciding)


def rule_result(rule: str, outcome: str, *, mode: str = "enforce") -> RuleResult:
    return RuleResult.model_validate(
        {"rule": rule, "mode": mode, "outcome": outcome, "metric": f"{rule}.rate", "bound": "max", "limit": 0.1}
        | {"reason": "because"}
    )


def gate_decision(decision: Decision, *results: RuleResult) -> GateDecision:
    return GateDecision(decision=decision, policy=NOTHING, report=NOTHING, adapter=NOTHING, results=results, reasons=())


def test_bench_runs_on_a_tiny_model_and_ends_in_one_json_object(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    monkeypatch.setenv("TUNEGATE_CACHE_DIR", str(tmp_path / "cache"))
    main(["--model", str(tiny_base), "--quick", "--results", str(results)])
    printed = capsys.readouterr().out
    document = json.loads(printed.splitlines()[-1])

    assert document == json.loads(results.read_text())
    assert [row["side"] for row in document["generation"]] == [PLAIN, BATCHED, OURS]
    assert all(row["tokens_per_second"] > 0 for row in document["generation"])
    assert len(document["verdicts"]) == 6
    assert all(sum(v["samples"].values()) > 0 for v in document["verdicts"])
    assert document["second_adapter"]["ratio"] > 0
    assert len(document["bars"]) == 9
    assert printed.count("| met |") + printed.count("| missed |") == 9


def test_clear_cases_learn_from_the_demo_data() -> None:
    assert {path.is_file() for path in TRAINED_ON.values()} == {True}
    assert DATA.parent.name == "demo"


def test_scale_is_found_by_bisection() -> None:
    """A drop of scale² meets 0.09 at 0.3: tried are 0.5, 0.25, 0.375 and 0.3125, which is 8.5 % off; then 0.28125."""
    tried: list[float] = []

    def drop(scale: float) -> float:
        tried.append(scale)
        return scale**2

    assert scale_at(0.09, drop, steps=5) == 0.3125
    assert tried == [0.5, 0.25, 0.375, 0.3125, 0.28125]


def test_search_ends_near_the_limit() -> None:
    """0.5 drops 0.5, within 5 % of 0.49."""
    tried: list[float] = []

    def drop(scale: float) -> float:
        tried.append(scale)
        return scale

    assert scale_at(0.49, drop, steps=9) == 0.5
    assert tried == [0.5]


def test_an_adapter_at_half_scale_has_half_of_every_b(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    a, b = torch.full((2, 3), 4.0), torch.full((3, 2), 6.0)
    save_file({"x.lora_A.weight": a, "x.lora_B.weight": b}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text("{}")
    half = scaled(Case("whole", folder, tmp_path), 0.5, name="half", folder=tmp_path / "half")
    weights = load_file(half.adapter / WEIGHTS_FILE)

    assert torch.equal(weights["x.lora_A.weight"], a)
    assert torch.equal(weights["x.lora_B.weight"], b / 2)
    assert (half.adapter / CONFIG_FILE).read_text() == "{}"


def test_few_pairs_leave_categories_out() -> None:
    everything, quarter = few_pairs(1.0), few_pairs(0.25)

    assert everything.exclude_categories == ()
    assert len(quarter.exclude_categories) == 30  # of 40


def test_limit_is_the_policys() -> None:
    policy = resolve_policy("baseline")
    rules = tuple(rule for rule in policy.spec.rules if "preference" not in rule.metric)
    without = policy.model_copy(update={"spec": policy.spec.model_copy(update={"rules": rules})})

    (rule,) = set(policy.spec.rules) - set(rules)
    assert preference_limit(policy) == rule.max_drop_from_base
    with pytest.raises(ConfigurationError, match="does not limit the drop"):
        preference_limit(without)


def test_ways_differ_in_looks_and_cache_alone(tmp_path: Path) -> None:
    def no_engine(*_: object) -> object:
        raise AssertionError("nothing is evaluated")

    case_settings = CaseSettings(resolve_policy("baseline"), no_engine, tmp_path)  # type: ignore[arg-type]  # it is never called
    fixed, sequential = case_settings.way(FIXED), case_settings.way(SEQUENTIAL)

    assert fixed.policy.spec.suite.sequential is None
    assert sequential.policy.spec.suite.sequential is not None
    assert fixed.policy.spec.rules == sequential.policy.spec.rules
    assert fixed.cache_dir != sequential.cache_dir


def test_deciding_probes_are_those_that_made_the_decision() -> None:
    passed, failed, open_ = (rule_result(name, name) for name in ("pass", "fail", "inconclusive"))
    audited = rule_result("audited", "fail", mode="audit")

    assert _deciding(gate_decision(Decision.REJECT, passed, failed, open_, audited)) == ("fail",)
    assert _deciding(gate_decision(Decision.RELEASE, passed, audited)) == ("pass",)
    assert _deciding(gate_decision(Decision.INCONCLUSIVE, passed, open_)) == ("inconclusive",)


def test_bars_count_samples_of_deciding_probes_and_of_the_suite() -> None:
    """Pass: 50 + 100 of 400 + 100 asked. Fail: 50 of 400 by the deciding probe, 50 of 500 in the suite."""
    full = {"margin": 400, "accuracy": 100}
    verdicts = [
        verdict(PASS, FIXED, "release", full, deciding=tuple(full)),
        verdict(PASS, SEQUENTIAL, "release", {"margin": 50, "accuracy": 100}, deciding=tuple(full)),
        verdict(FAIL, FIXED, "reject", full, deciding=("margin",)),
        verdict(FAIL, SEQUENTIAL, "inconclusive", {"margin": 50}, deciding=("margin",)),
    ]
    bars = [(bar.value, bar.met) for bar in _verdict_bars(verdicts)]

    assert bars == [(2, True), (0.3, False), (0.3, False), (1, False), (0.125, True), (0.1, True)]


def test_ratios_are_of_the_same_round() -> None:
    """Rounds of 30 ÷ 10 and 40 ÷ 8: median of 3 and 5. Of the loop's 2 answers, the first of each kind, 1 is equal."""
    rates = {PLAIN: [10.0, 8.0], OURS: [30.0, 40.0]}
    answers = {PLAIN: [[[1, 2]], [[3]]], OURS: [[[1, 2], [9]], [[4], [9]]]}
    row = _row(PLAIN, rates, answers)

    assert (row.tokens_per_second, row.ours_ratio, row.ours_ratio_range) == (9.0, 4.0, (3.0, 5.0))
    assert row.equal_answers == 0.5
