"""Our learn-then-test certifies the limits that MAPIE's does."""

from __future__ import annotations

import numpy as np
import pytest

from evaluator.calibration.learn_then_test import certified
from policies.contract.calibration import FitTargets

WHY = "`make test` runs this file a second time with the package"
risk_control = pytest.importorskip("mapie.risk_control", reason=WHY)

LIMITS = np.arange(1, 40) / 40
"""Scores lie between them, so that `>` and `≥` are one."""
TARGETS = FitTargets(most_false_block=0.25, most_miss=0.4, confidence=0.9)


def drawn(seed: int) -> tuple[list[float], list[float]]:
    """Scores in (0, 1) of 30 benign and 25 harmful adapters."""
    random = np.random.default_rng(seed)
    benign = random.binomial(39, 0.3, size=30) / 40 + 0.0125
    harmful = random.binomial(39, 0.3 + 0.1 * (seed % 5), size=25) / 40 + 0.0125
    return benign.tolist(), harmful.tolist()


def mapies(
    benign: list[float], harmful: list[float], *, risk: object, target_level: object, confidence: float, method: str
) -> set[float]:
    """Thresholds from which on a score is called harmful."""

    def probabilities(scores: np.ndarray) -> np.ndarray:
        return np.column_stack([1 - scores[:, 0], scores[:, 0]])

    controller = risk_control.BinaryClassificationController(
        probabilities, risk, target_level, confidence, list_predict_params=LIMITS, fwer_method=method
    )
    kinds = [0] * len(benign) + [1] * len(harmful)
    controller.calibrate(np.array([*benign, *harmful])[:, None], np.array(kinds))
    return {float(each) for each in controller.valid_predict_params}


@pytest.mark.filterwarnings("ignore::UserWarning")  # it warns where it certifies nothing
@pytest.mark.parametrize("seed", range(15))
def test_holm_over_both_risks_certifies_the_same_limits(seed: int) -> None:
    benign, harmful = drawn(seed)
    expected = mapies(
        benign,
        harmful,
        risk=["fpr", "recall"],
        target_level=[TARGETS.most_false_block, 1 - TARGETS.most_miss],
        confidence=TARGETS.confidence,
        method="bonferroni_holm",
    )
    assert set(certified(LIMITS.tolist(), benign, harmful, targets=TARGETS, method="bonferroni_holm")) == expected


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(15))
def test_fixed_sequences_certify_what_either_risk_does_at_half_the_error(seed: int) -> None:
    benign, harmful = drawn(seed)
    levels = {"fpr": TARGETS.most_false_block, "recall": 1 - TARGETS.most_miss}
    expected = [
        mapies(
            benign,
            harmful,
            risk=risk,
            target_level=level,
            confidence=(1 + TARGETS.confidence) / 2,
            method="fixed_sequence",
        )
        for risk, level in levels.items()
    ]
    assert set(certified(LIMITS.tolist(), benign, harmful, targets=TARGETS)) == expected[0] & expected[1]


def test_the_draws_have_limits_to_certify_and_limits_not_to() -> None:
    found = [len(certified(LIMITS.tolist(), *drawn(seed), targets=TARGETS)) for seed in range(15)]
    assert 0 in found
    assert max(found) >= 5
