"""What a hierarchical normal model predicts for the next adapter, of a domain that no reference has.

The scores T of adapters of one kind follow, for adapter i of domain d,

    T_i = μ + β · log2(dose_i) + u_d + ε_i,    u_d ~ N(0, τ²),    ε_i ~ N(0, σ²),

where ε holds seed, epochs and the evaluation's own noise, and β is left out unless doses differ. Both kinds are fitted
apart. The priors are weakly informative, on the scale s, the standard deviation of the scores of both kinds together:
μ ~ N(their median, (10 s)²), β ~ N(0, (5 s)²), τ and σ half-Cauchy(s) (Gelman 2006, Bayesian Analysis 1:515).

Given τ and σ all else is normal and integrates out. The posterior of the two is summed over a grid, so the predictive
distribution is a finite mixture of normals: nothing is drawn at random, and no chain has to converge. This takes the
normal model at its word, which the other two estimators do not need; in return it uses the size of the scores, allows
for adapters of one domain being alike, and says something with few references.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from evaluator.calibration.references import Reference, RuleReferences
from evaluator.calibration.release_limits import as_stated
from policies.contract.calibration import LimitFit

Array = NDArray[np.float64]

_LEAST = 3
"""Scores of a kind; with fewer the priors speak."""
_STEPS = 48
"""Of the grid on either axis, evenly in the logarithm."""
_SMALLEST, _LARGEST = 0.01, 20.0
"""Ends of the grid, in units of the scale."""
_PRIOR_MEAN, _PRIOR_SLOPE = 10.0, 5.0
_SMALLEST_DOSE = 0.001
_REACH = 50.0
"""How far beyond the scores a limit is searched, in units of the scale."""


class Predictive(NamedTuple):
    """A mixture of normals: the distribution of the next adapter's score."""

    weights: Array
    means: Array
    deviations: Array

    def below(self, limit: float) -> float:
        """P(score ≤ limit)."""
        return float(self.weights @ special.ndtr((limit - self.means) / self.deviations))

    def quantile(self, share: float) -> float:
        """The score that is not exceeded with this probability."""
        reach = float(np.max(np.abs(self.means)) + _REACH * np.max(self.deviations))
        return float(optimize.brentq(lambda limit: self.below(limit) - share, -reach, reach))


def predict(references: Sequence[Reference], *, centre: float, scale: float, by_dose: bool) -> Predictive:
    """The next adapter's distribution, its dose as likely any of the references' (with `by_dose`).

    Args:
        references: With finite scores.
        centre: Of the prior of μ.
        scale: s.
        by_dose: Doses differ, and are a regressor.
    """
    y = np.array([each.score - centre for each in references]) / scale
    _, domain = np.unique([each.domain for each in references], return_inverse=True)
    doses = np.log2([max(each.dose, _SMALLEST_DOSE) for each in references])
    x = np.column_stack([np.ones(len(y)), doses])[:, : 2 if by_dose else 1]
    prior = np.diag([_PRIOR_MEAN**-2, _PRIOR_SLOPE**-2][: x.shape[1]])
    axis = np.geomspace(_SMALLEST, _LARGEST, _STEPS)
    tau, sigma = (each.ravel() for each in np.meshgrid(axis, axis))
    likelihood, mean, covariance = _integrate(y, x, domain, (tau, sigma), prior)
    # evenly in the logarithm: the density of τ is multiplied by τ
    log_weight = likelihood + np.log(tau) - np.log1p(tau**2) + np.log(sigma) - np.log1p(sigma**2)
    weight = special.softmax(log_weight)
    new = np.unique(x, axis=0, return_counts=True)
    rows, shares = new[0], new[1] / len(y)
    means = mean @ rows.T
    variances = np.einsum("rp,gpq,rq->gr", rows, covariance, rows) + (tau**2 + sigma**2)[:, None]
    return Predictive(
        weights=(weight[:, None] * shares).ravel(),
        means=(centre + scale * means).ravel(),
        deviations=(scale * np.sqrt(variances)).ravel(),
    )


def _integrate(
    y: Array, x: Array, domain: NDArray[np.intp], spreads: tuple[Array, Array], prior: Array
) -> tuple[Array, Array, Array]:
    """Log likelihood with the coefficients integrated out, their mean and their covariance, for each (τ, σ).

    With V = σ² I + τ² (same domain), V⁻¹ = (I − Σ_d c_d 1_d 1_dᵀ) / σ² and c_d = τ² / (σ² + n_d τ²); the coefficients
    have precision A = XᵀV⁻¹X + prior and mean A⁻¹XᵀV⁻¹y (Gelman et al., Bayesian Data Analysis, 3rd ed., §15.3).
    """
    tau, sigma = spreads
    sizes = np.bincount(domain).astype(float)
    sums_x = np.stack([np.bincount(domain, weights=column) for column in x.T], axis=1)
    sums_y = np.bincount(domain, weights=y)
    shrink = tau[:, None] ** 2 / (sigma[:, None] ** 2 + sizes * tau[:, None] ** 2)
    noise = sigma**2
    xx = (x.T @ x - np.einsum("gd,dp,dq->gpq", shrink, sums_x, sums_x)) / noise[:, None, None]
    xy = (x.T @ y - np.einsum("gd,dp,d->gp", shrink, sums_x, sums_y)) / noise[:, None]
    yy = (y @ y - shrink @ sums_y**2) / noise
    precision = xx + prior
    covariance = np.linalg.inv(precision)
    mean = np.einsum("gpq,gq->gp", covariance, xy)
    log_det_v = (len(y) - len(sizes)) * np.log(noise) + np.log(noise[:, None] + sizes * tau[:, None] ** 2).sum(axis=1)
    explained = np.einsum("gp,gp->g", xy, mean)
    return -0.5 * (log_det_v + np.linalg.slogdet(precision)[1] + yy - explained), mean, covariance


def rounded(figure: float) -> float:
    """To six digits, which are the same on every machine; the last ones depend on the order of its sums."""
    return float(f"{figure:.6g}")


def fit(references: RuleReferences) -> LimitFit:
    """The limit at which the next benign adapter is as likely blocked as the next harmful one is released."""
    benign = [each for each in references.benign if math.isfinite(each.score)]
    harmful = [each for each in references.opposed if math.isfinite(each.score)]
    scores = [each.score for each in (*benign, *harmful)]
    limit = blocked = missed = None
    if min(len(benign), len(harmful)) >= _LEAST and (scale := float(np.std(scores))) > 0:
        centre = median(scores)
        next_benign = predict(benign, centre=centre, scale=scale, by_dose=False)
        next_harmful = predict(harmful, centre=centre, scale=scale, by_dose=len({each.dose for each in harmful}) > 1)
        unmeasured = 1 - len(benign) / len(references.benign)
        reach = _REACH * scale

        def false_blocks(at: float) -> float:
            return unmeasured + (1 - unmeasured) * (1 - next_benign.below(at))

        balanced = optimize.brentq(
            lambda at: next_harmful.below(at) - false_blocks(at), min(scores) - reach, max(scores) + reach
        )
        limit = references.stated(float(balanced))
        blocked, missed = min(1.0, false_blocks(limit)), min(1.0, next_harmful.below(limit))
    return LimitFit(
        estimator="posterior_predictive",
        limit=None if limit is None else rounded(as_stated(limit, references.bound)),
        false_block_le=None if blocked is None else rounded(blocked),
        miss_le=None if missed is None else rounded(missed),
        confidence=None,
        assumes=(
            "Release limits are normal about a mean of their kind, with an effect of the domain and, of harmful ones, "
            "of log2(dose); weakly informative priors. The rates are predictive means for adapters of new domains"
        ),
    )
