"""The hierarchical model's predictions, against dense algebra and against adapters whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evaluator.calibration.posterior_predictive import _integrate, fit, predict
from evaluator.calibration.references import Reference, RuleReferences
from tests.evaluator.calibration.made_up_runs import references


def test_the_likelihood_is_that_of_a_dense_normal_distribution() -> None:
    """y ~ N(0, V + X B Xᵀ), V = σ² I + τ² (same domain), B the prior's covariance; the same constant at each (τ, σ)."""
    random = np.random.default_rng(3)
    domain = np.array([0, 0, 1, 1, 1, 2, 3])
    x = np.column_stack([np.ones(7), random.normal(size=7)])
    y, prior = random.normal(size=7), np.diag([0.01, 0.04])
    tau, sigma = np.array([0.1, 1.0, 2.0]), np.array([0.5, 0.2, 3.0])
    found, mean, covariance = _integrate(y, x, domain, (tau, sigma), prior)
    same = domain[:, None] == domain
    dense = [s**2 * np.eye(7) + t**2 * same for t, s in zip(tau, sigma, strict=True)]
    expected = [stats.multivariate_normal(cov=v + x @ np.linalg.inv(prior) @ x.T).logpdf(y) for v in dense]
    assert found - found[0] == pytest.approx(np.array(expected) - expected[0])
    precision = x.T @ np.linalg.inv(dense[1]) @ x + prior
    assert covariance[1] == pytest.approx(np.linalg.inv(precision))
    assert mean[1] == pytest.approx(np.linalg.solve(precision, x.T @ np.linalg.inv(dense[1]) @ y))


def test_many_domains_give_the_distribution_that_they_are_drawn_from() -> None:
    """μ = 0.3, τ = 0.2, σ = 0.1: the next score is N(0.3, 0.05), its 90 % quantile 0.3 + 1.2816 · 0.2236 = 0.587."""
    drawn = simulated(np.random.default_rng(1), n_domains=400, mean=0.3, tau=0.2, sigma=0.1)
    found = predict(drawn, centre=0.0, scale=0.25, by_dose=False)
    assert found.quantile(0.9) == pytest.approx(0.587, abs=0.03)
    assert found.below(0.3) == pytest.approx(0.5, abs=0.06)


def simulated(
    random: np.random.Generator, *, n_domains: int, mean: float, tau: float, sigma: float, seeds: int = 3
) -> list[Reference]:
    domains = [(f"d{i}", mean + tau * random.normal()) for i in range(n_domains)]
    return [Reference(name, 1.0, effect + sigma * random.normal()) for name, effect in domains for _ in range(seeds)]


def test_the_next_adapter_lies_below_a_quantile_as_often_as_it_says() -> None:
    """8 domains of 3 adapters, the truth known; 300 draws at 90 % have a standard error of 1.7 %. Priors widen it."""
    random = np.random.default_rng(11)
    below = []
    for _ in range(300):
        drawn = simulated(random, n_domains=8, mean=0.1, tau=0.05, sigma=0.03)
        following = 0.1 + math.hypot(0.05, 0.03) * random.normal()
        below.append(following <= predict(drawn, centre=0.1, scale=0.06, by_dose=False).quantile(0.9))
    assert 0.86 <= np.mean(below) <= 0.96


def test_more_of_the_same_domain_tells_less_than_other_domains() -> None:
    """Twelve adapters of two domains leave more open than twelve of twelve."""
    values = [0.1, 0.3] * 6
    few = [Reference(f"d{i % 2}", 1.0, value) for i, value in enumerate(values)]
    many = [Reference(f"d{i}", 1.0, value) for i, value in enumerate(values)]
    ranges = [predict(each, centre=0.2, scale=0.1, by_dose=False) for each in (few, many)]
    assert ranges[0].quantile(0.95) > ranges[1].quantile(0.95) + 0.05


def test_a_weak_dose_is_predicted_to_be_missed_more_often() -> None:
    """Scores rise by 0.1 with each doubling of the dose; the prediction for either dose is near its own."""
    doses = (0.25, 0.5, 1.0)
    drawn = [Reference(f"d{i}", d, 0.3 + 0.1 * math.log2(d) + 0.001 * (i % 3)) for i in range(9) for d in doses]
    found = predict(drawn, centre=0.2, scale=0.1, by_dose=True)
    assert found.below(0.15) == pytest.approx(1 / 3, abs=0.03)
    assert found.below(0.25) == pytest.approx(2 / 3, abs=0.03)


def test_the_limit_balances_both_errors() -> None:
    """Benign scores mirror the harmful ones about 0.1, so the limit is there and both errors are the same."""
    offsets = [0.02, 0.03, 0.05, 0.06, 0.08]
    found = fit(references([0.1 - each for each in offsets], [0.1 + each for each in offsets]))
    assert found.limit == pytest.approx(0.1, abs=1e-6)
    assert found.false_block_le == pytest.approx(found.miss_le)
    assert found.confidence is None


def test_an_adapter_without_a_figure_is_one_that_is_blocked() -> None:
    """One of five benign adapters has no figure: wherever the limit is, a fifth is blocked."""
    offsets = [0.02, 0.03, 0.05, 0.06]
    found = fit(references([math.inf, *(0.1 - each for each in offsets)], [0.1 + each for each in offsets]))
    assert found.false_block_le is not None
    assert found.false_block_le > 0.2


@pytest.mark.parametrize(
    ("benign", "harmful"),
    [([0.1, 0.2], [0.3, 0.4, 0.5]), ([0.1, 0.2, 0.3], [0.4, math.inf]), ([0.1] * 5, [0.1] * 5)],
)
def test_too_few_adapters_or_none_that_differ_have_no_limit(benign: list[float], harmful: list[float]) -> None:
    found = fit(references(benign, harmful))
    assert (found.limit, found.false_block_le, found.miss_le) == (None, None, None)


def test_the_limit_is_one_that_a_policy_may_state() -> None:
    """Both kinds rise: the balance at −0.3 becomes a drop of at most 0, at which the harmful ones are released."""
    found = fit(references([-0.4, -0.38, -0.36], [-0.2, -0.22, -0.24]))
    assert found.limit == 0
    assert found.miss_le is not None
    assert found.miss_le > 0.9


def test_the_order_of_adapters_changes_nothing() -> None:
    benign, harmful = [0.01, 0.03, 0.02, 0.05], [0.1, 0.2, 0.15]
    scores = references(benign, harmful)
    turned = RuleReferences(**{**vars(scores), "benign": scores.benign[::-1], "opposed": scores.opposed[::-1]})
    assert fit(turned) == fit(scores)
