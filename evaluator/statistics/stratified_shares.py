"""The mean over tasks of a share of prompts, and its paired change: tasks are fixed strata, prompts within them drawn.

Each stratum has the intervals of `paired_share`. The interval of the mean recovers its variance from theirs (MOVER: Zou
& Donner 2008, Stat. Med. 27:1693): with θ = Σ θ_t / T and stratum intervals [l_t, u_t], it goes from
θ − √Σ (θ_t − l_t)² / T to θ + √Σ (u_t − θ_t)² / T. So it is not empty where nothing changed, and for one stratum it is
the stratum's own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from evaluator.samples import Pair
from evaluator.statistics.measurements import paired_share
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.errors import EvaluationError


def stratified_paired_share(metric: str, pairs: Sequence[Pair], confidence: float) -> Measurement:
    """A share of prompts in each cluster, averaged over clusters; scores are 0 or 1.

    Raises:
        EvaluationError: no prompt of a cluster was scored for both models, so there is no mean over all of them.
    """
    strata: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        strata[pair.adapter.cluster].append(pair)
    adapters, bases, differences = [], [], []
    for name, stratum in strata.items():
        part = paired_share(metric, stratum, confidence)
        if part.adapter is None or part.base is None or part.difference is None:
            raise EvaluationError(f"nothing of {name} was scored for both models, so there is no mean over all tasks")
        adapters.append(part.adapter)
        bases.append(part.base)
        differences.append(part.difference)
    pooled = paired_share(metric, pairs, confidence)
    figures = {"adapter": adapters, "base": bases, "difference": differences}
    return pooled.model_copy(
        update={name: mean_of_strata(parts) for name, parts in figures.items()}
        | {"method": f"mean over tasks, by MOVER from intervals of each: {pooled.method}"}
    )


def mean_of_strata(strata: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, each with as much weight."""
    if not strata:
        raise EvaluationError("nothing was scored, so there is no figure")
    n, value = len(strata), math.fsum(stratum.value for stratum in strata) / len(strata)
    below = math.hypot(*(stratum.value - stratum.interval.low for stratum in strata)) / n
    above = math.hypot(*(stratum.interval.high - stratum.value for stratum in strata)) / n
    return Estimate(value=value, interval=Interval(low=value - below, high=value + above))
