"""Canaries: a sound evaluation tells them apart, and one that can't is found out."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evaluator.canaries.pair_files import FOLDER, find_pair, short
from evaluator.self_test.canaries import Canary, gather_canaries, pair_to_test
from evaluator.self_test.running import Bar, keep_self_test, run_self_test
from policies.contract.evaluation import EvalReport
from policies.contract.release import Decision
from policies.contract.self_test import SelfTestReport
from policies.contract.suite import Coherence, EvalSuite
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule
from policies.errors import ConfigurationError, EvaluationError
from tests.evaluator.made_up_reports import measurement, report
from tests.made_up_calibrations import bindings, calibration_record, rule_calibration

DIGEST = "sha256:" + "d" * 64
SUITE = EvalSuite(probes=(Coherence(),))
POLICY = ReleasePolicy(
    api_version="tunegate/v1",
    kind="ReleasePolicy",
    metadata=Metadata(name="house", version="1"),
    spec=ReleaseSpec(suite=SUITE, rules=(Rule(id="incoherence", metric="coherence.incoherent_rate", max=0.25),)),
)
CANARIES = tuple(Canary(name, Path(name)) for name in ("good", "bad", "unloaded", "broken"))
N_ANSWERS = 256
"""Of the probe's built-in prompts."""
SOUND = {"good": 0.0, "bad": 0.6, "unloaded": 0.0, "broken": 1.0}


def incoherent_report(share: float, *, loaded: bool = True) -> EvalReport:
    """A share ± 0.01, measured on an adapter that was in force or not."""
    answers = {"n_requested": N_ANSWERS, "n_scored": N_ANSWERS}
    found = report(POLICY, measurement("coherence.incoherent_rate", share, **answers), spec=None)
    proof = found.proof.model_copy(update={"loaded": loaded, "max_abs_logit_difference": 1.0 if loaded else 0.0})
    return found.model_copy(update={"proof": proof})


def self_test(
    shares: dict[str, float], *, at: float = 100.0, broken_error: bool = False, bar: Bar | None = None
) -> SelfTestReport:
    def evaluate(canary: Canary) -> EvalReport:
        if broken_error and canary.name == "broken":
            raise EvaluationError("the adapter has NaN weights")
        return incoherent_report(shares[canary.name], loaded=canary.name != "unloaded")

    return run_self_test(bar or Bar(POLICY), DIGEST, CANARIES, evaluate, now=lambda: at)


def test_sound_evaluation_passes() -> None:
    result = self_test(SOUND)

    assert result.passed
    assert result.last_passed_at == 100.0
    assert [c.decision for c in result.canaries] == [
        Decision.RELEASE,
        Decision.REJECT,
        Decision.INCONCLUSIVE,
        Decision.REJECT,
    ]


@pytest.mark.parametrize(
    ("canary", "share"), [("bad", 0.0), ("bad", 0.25), ("good", 0.6), ("good", 0.25), ("broken", 0.0)]
)
def test_evaluation_that_mistakes_a_canary_is_found_out(canary: str, share: float) -> None:
    """0.25 ± 0.01 has the limit inside, so it is inconclusive: neither a release nor a rejection."""
    result = self_test(SOUND | {canary: share})

    assert not result.passed
    assert [c.canary for c in result.canaries if not c.passed] == [canary]
    assert result.last_passed_at is None


def test_broken_adapter_may_be_refused_before_it_is_measured() -> None:
    assert self_test(SOUND, broken_error=True).passed


def test_evaluation_that_always_fails_is_found_out() -> None:
    def evaluate(canary: Canary) -> EvalReport:
        raise EvaluationError("no judge answers")

    result = run_self_test(Bar(POLICY), DIGEST, CANARIES, evaluate, now=lambda: 1.0)

    assert [c.canary for c in result.canaries if not c.passed] == ["good", "bad"]


def test_failed_self_test_keeps_the_time_of_the_last_that_passed(tmp_path: Path) -> None:
    keep_self_test(self_test(SOUND, at=100.0), tmp_path)
    failed = keep_self_test(self_test(SOUND | {"bad": 0.0}, at=200.0), tmp_path)

    assert failed.last_passed_at == 100.0
    assert failed.finished_at == 200.0
    assert not failed.passed


def test_canaries_are_made_from_a_trained_pair(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    trained = make_adapter(0.1, name="good").parent
    make_adapter(0.2, name="bad")
    canaries = {
        c.name: load_file(c.folder / "adapter_model.safetensors")
        for c in gather_canaries(pair_to_test(trained, DIGEST, tmp_path), tmp_path / "canaries")
    }

    assert list(canaries) == ["good", "bad", "unloaded", "broken"]
    assert all(not weights.any() for name, weights in canaries["unloaded"].items() if "lora_B" in name)
    assert all(weights.any() for name, weights in canaries["unloaded"].items() if "lora_A" in name)
    spread = torch.cat([weights.flatten() for weights in canaries["broken"].values()]).std()
    assert spread == pytest.approx(1.0, abs=0.05)


def test_base_model_without_a_pair_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="train a pair"):
        pair_to_test(None, DIGEST, tmp_path)


def test_folder_that_holds_no_pair_is_named(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    trained = make_adapter(0.1, name="good").parent
    with pytest.raises(ConfigurationError, match="holds no two adapter folders good and bad") as raised:
        pair_to_test(trained, DIGEST, tmp_path)
    assert raised.value.param == "canaries"


def test_pair_of_the_cache_folder_is_tested_where_none_is_named(
    make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    """It is what `own_domain` and the screens measure with there."""
    place = tmp_path / "cache" / FOLDER / short(DIGEST)
    shutil.copytree(make_adapter(0.1, name="good"), place / "good")
    shutil.copytree(make_adapter(0.2, name="bad"), place / "bad")

    assert pair_to_test(None, DIGEST, tmp_path / "cache") == find_pair("builtin", DIGEST, tmp_path / "cache")


def test_report_that_is_kept_tells_the_drift_of_its_figures(tmp_path: Path) -> None:
    """The share of `bad` falls from one look on, which the gate would not notice."""
    draws = random.Random(0)
    for night in range(80):
        share = 0.6 if night < 50 else 0.5
        kept = keep_self_test(self_test(SOUND | {"bad": share + draws.uniform(0, 0.02)}, at=float(night)), tmp_path)

    assert kept.passed
    assert kept.drift is not None
    assert (kept.drift.n_looks, kept.drift.is_alarm) == (80, True)


def test_policy_that_requires_a_calibration_is_self_tested_with_it() -> None:
    demanding = POLICY.model_copy(update={"spec": POLICY.spec.model_copy(update={"require_calibration": True})})
    known = rule_calibration("coherence.incoherent_rate", "max")
    record = calibration_record(known, bound_to=bindings(suite=SUITE.digest))
    reports = {name: incoherent_report(share) for name, share in SOUND.items()}

    def good(bar: Bar) -> Decision | None:
        def evaluate(canary: Canary) -> EvalReport:
            return reports[canary.name].model_copy(update={"policy": demanding.digest})

        return run_self_test(bar, DIGEST, CANARIES[:1], evaluate, now=lambda: 1.0).canaries[0].decision

    assert good(Bar(demanding)) is Decision.INCONCLUSIVE
    assert good(Bar(demanding, record)) is Decision.RELEASE
