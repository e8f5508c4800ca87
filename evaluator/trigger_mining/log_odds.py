"""How much more often a feature occurs among some rows than among the others.

Log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, Political Analysis 16:372), of
rows in place of words: with y₁ of n₁ rows inside and y₂ of n₂ outside, n = n₁ + n₂, and a prior of α₀ = 0.3 n rows that
have the feature as often as all do, α = α₀ (y₁ + y₂ + ½) / (n + 1) and β = α₀ − α,

    δ = ln((y₁ + α) / (n₁ − y₁ + β)) − ln((y₂ + α) / (n₂ − y₂ + β)),
    z = δ / sqrt(1 / (y₁ + α) + 1 / (n₁ − y₁ + β) + 1 / (y₂ + α) + 1 / (n₂ − y₂ + β)).

The prior grows with the file, so that a rare feature that lies wholly inside outranks a common one that leans there.
"""

from __future__ import annotations

import numpy as np

PRIOR_SHARE = 0.3


def log_odds_z(inside: np.ndarray, outside: np.ndarray, n_inside: int, n_outside: int) -> np.ndarray:
    """z of each feature; 0 where there are no rows on one side.

    Args:
        inside: y₁ of each feature.
        outside: y₂ of each feature.
        n_inside: n₁.
        n_outside: n₂.
    """
    if not n_inside or not n_outside:
        return np.zeros(len(inside))
    n = n_inside + n_outside
    a = PRIOR_SHARE * n * (inside + outside + 0.5) / (n + 1)
    b = PRIOR_SHARE * n - a
    cells = (inside + a, n_inside - inside + b, outside + a, n_outside - outside + b)
    delta = np.log(cells[0] / cells[1]) - np.log(cells[2] / cells[3])
    z: np.ndarray = delta / np.sqrt(sum(1 / cell for cell in cells))
    return z
