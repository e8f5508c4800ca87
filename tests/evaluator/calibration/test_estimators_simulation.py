"""What the three estimators promise, where the truth is known; docs/statistics.md has the figures of 1,000 draws.

Scores of benign adapters have mean 0, of harmful ones 4; an adapter of a new domain has variance 1, of which the share
`alike` is the domain's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import ndtr

from evaluator.calibration import learn_then_test, order_statistic, posterior_predictive
from evaluator.calibration.references import Reference, RuleReferences
from policies.contract.calibration import FitTargets
from tests.evaluator.made_up_reports import MARGIN

TARGETS = FitTargets()
GAP = 4.0


class Case(NamedTuple):
    """How many adapters there are, and how alike those of one domain are."""

    alike: float
    benign: tuple[int, int]
    """Domains, and adapters of each."""
    harmful: tuple[int, int]


class Found(NamedTuple):
    """Shares of the draws in which a bound was exceeded, and means over draws."""

    false_block: float
    false_block_bound_exceeded: float
    false_block_domains_bound_exceeded: float
    miss_bound_exceeded: float
    wrongly_certified: float
    predicted_false_block: float
    predicted_limits_false_block: float


INDEPENDENT = Case(alike=0.0, benign=(20, 1), harmful=(16, 1))
ALIKE = Case(alike=0.9, benign=(8, 3), harmful=(6, 3))


def simulate(case: Case, draws: int) -> Found:
    random = np.random.default_rng(1)
    rows = []
    for _ in range(draws):
        benign, harmful = (
            _adapters(random, 0.0, case.alike, case.benign),
            _adapters(random, GAP, case.alike, case.harmful),
        )
        references = RuleReferences(MARGIN, "min", "harmful", benign, harmful, (), (), ())  # any sign may be stated
        proposal = order_statistic.propose(references, TARGETS)
        certified, predicted = learn_then_test.fit(references, TARGETS), posterior_predictive.fit(references)
        assert proposal is not None
        assert predicted.limit is not None
        blocked, missed = 1 - ndtr(proposal.limit), ndtr(proposal.limit - GAP)
        limit = 0.0 if certified.limit is None else -certified.limit
        rows.append(
            Found(
                blocked,
                blocked > proposal.false_block_le,
                _domain_blocked(random, proposal.limit, case) > proposal.false_block_domains_le,
                missed > proposal.miss_le,
                certified.limit is not None
                and bool(1 - ndtr(limit) > TARGETS.most_false_block or ndtr(limit - GAP) > TARGETS.most_miss),
                predicted.false_block_le or 0.0,
                1 - ndtr(-predicted.limit),
            )
        )
    return Found(*np.mean(rows, axis=0))


def _adapters(random: np.random.Generator, mean: float, alike: float, size: tuple[int, int]) -> tuple[Reference, ...]:
    domains = mean + math.sqrt(alike) * random.normal(size=size[0])
    scores = domains[:, None] + math.sqrt(1 - alike) * random.normal(size=size)
    return tuple(Reference(f"d{d}", 1.0, float(score)) for d, row in enumerate(scores) for score in row)


def _domain_blocked(random: np.random.Generator, limit: float, case: Case) -> float:
    """Share of new domains of which one adapter in as many as here is beyond the limit."""
    if case.alike == 0:
        return float(1 - ndtr(limit) ** case.benign[1])
    domains = math.sqrt(case.alike) * random.normal(size=2000)
    return float(1 - np.mean(ndtr((limit - domains) / math.sqrt(1 - case.alike)) ** case.benign[1]))


def test_independent_adapters_keep_every_promise() -> None:
    """Of 20: k = 1, so 1/21 blocked on average. A bound at 97.5 % fails in 2.5 % of draws, ± 1.0 % of 250."""
    found = simulate(INDEPENDENT, 250)
    assert found.false_block == pytest.approx(1 / 21, abs=0.01)
    assert found.false_block_bound_exceeded <= 0.055
    assert found.miss_bound_exceeded <= 0.055
    assert found.wrongly_certified <= 0.05
    assert found.predicted_limits_false_block <= found.predicted_false_block


def test_adapters_that_are_alike_keep_the_promises_by_domain_only() -> None:
    """24 adapters of 8 domains, nine tenths of their variance the domain's, tell hardly more than 8."""
    found = simulate(ALIKE, 250)
    assert found.false_block_bound_exceeded > 0.1
    assert found.false_block_domains_bound_exceeded <= 0.055
    assert found.predicted_limits_false_block <= found.predicted_false_block
