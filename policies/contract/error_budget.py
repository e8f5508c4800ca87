"""Divides a suite's error probability among the looks of one evaluation and among attempts on nearly one dataset.

With confidence 1 − α, the intervals of a figure at all looks hold together with probability 1 − α. Look k, at share t_k
of the samples, has

    α_k = α · (t_k − t_{k−1}) · 2^{−(r − 1)},    t_0 = 0,

in attempt r: what α · t, an error-spending function, gives out between two looks (Lan & DeMets 1983, Biometrika 70:659;
the linear one is Kim & DeMets 1987, Biometrika 74:149). Σ α_k ≤ α, so by the union bound the intervals of all looks are
a confidence sequence over the looks (repeated confidence intervals: Jennison & Turnbull 1989, JRSS B 51:305), whatever
method makes them, as long as each covers at a fixed sample size. A run may then stop at any look for any reason.

Two-sided intervals put about α/2 on the side that releases. Halving α for each attempt keeps the sum over any number of
attempts, however they depend on each other, at or below α/2 · (1 + 1/2 + 1/4 + …) = α: false releases stay within the
promise for a tenant who retries. The first attempt pays nothing for it.

All values are rounded so that the error probabilities that are given out never sum to more than α.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

from policies.contract.suite import DIVISIBLE_PROBES, EvalSuite
from policies.errors import ConfigurationError, EvaluationError


def look_confidence(confidence: float, looks: Sequence[float], look: int, *, attempt: int) -> float:
    """Confidence that the intervals of one look must have.

    Args:
        confidence: 1 − α, of all looks together.
        looks: Growing shares of the samples, in (0, 1].
        look: Index of the look in `looks`, from 0.
        attempt: 1 for the first evaluation on a dataset, 2 for the next one on nearly the same, and so on.
    """
    if not looks or not 0 < looks[0] <= looks[-1] <= 1 or any(a >= b for a, b in itertools.pairwise(looks)):
        raise ConfigurationError(f"looks {list(looks)} must grow within (0, 1], e.g. [0.125, 0.25, 0.5, 1]")
    if not 0 <= look < len(looks):
        raise ConfigurationError(f"there is no look {look} among {len(looks)}, counted from 0")
    before = Fraction(looks[look - 1]) if look else Fraction(0)
    return _confidence(confidence, Fraction(looks[look]) - before, attempt)


def fixed_confidence(confidence: float, *, attempt: int) -> float:
    """Confidence of intervals that are made once, on all prompts."""
    return _confidence(confidence, Fraction(1), attempt)


def probe_confidence(suite: EvalSuite, probe: str, look: int, *, attempt: int = 1, candidates: int = 1) -> float:
    """Confidence of a probe's intervals at a look, so that the suite's holds over all looks, attempts and candidates.

    The best of k candidates is released if any passes, so each has a k-th of the error probability (Bonferroni).
    """
    confidence = 1 - (1 - suite.confidence) / candidates
    if suite.sequential is None or probe not in DIVISIBLE_PROBES:
        return fixed_confidence(confidence, attempt=attempt)
    return look_confidence(confidence, suite.sequential.looks, look, attempt=attempt)


def _confidence(confidence: float, share: Fraction, attempt: int) -> float:
    """1 − α · share · 2^{1 − attempt}, rounded up."""
    if not 0 < confidence < 1:
        raise ConfigurationError(f"confidence {confidence} must lie in (0, 1)")
    if attempt < 1:
        raise ConfigurationError(f"attempt {attempt} does not exist; the first one is 1")
    exact = 1 - (1 - Fraction(confidence)) * share / 2 ** (attempt - 1)
    rounded = float(exact)
    if Fraction(rounded) < exact:
        rounded = math.nextafter(rounded, 2)
    if rounded >= 1:
        raise EvaluationError(
            f"no error probability is left for this look of attempt {attempt} on nearly the same training file"
        )
    return rounded
