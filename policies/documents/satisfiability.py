"""Finds rules that no adapter can pass, whatever it does: the suite does not measure them, or with too few samples.

The number of samples is known where a probe asks its built-in prompts; a prompt set of others may be of any size, so
nothing is said about it. A share is best where there is not a single hit. Its interval then still reaches up to

    1 − (α/2)^(1/n)                       Clopper & Pearson, n independent answers
    n = g m / (1 + (m − 1) ρ), ρ = 0.2    for m answers to each of g questions, as judged rates count them at most

with the largest α that a look has (`policies.contract.error_budget`). A limit below that can't be passed. Nothing is
said about the limit of a change: an adapter that is better than its base may pass any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from policies.contract.error_budget import probe_confidence
from policies.contract.metrics import metric_named
from policies.contract.probe_record import MostAnswers
from policies.contract.suite import EvalSuite, ProbeSettings
from policies.documents.schema import ReleasePolicy, Rule

LEAST_INTRACLASS_CORRELATION = 0.2
"""ρ, as in `evaluator.statistics.clustered_shares`."""


class Problem(NamedTuple):
    """A field that keeps its rule from ever passing."""

    rule: int
    """Index of the rule in the policy."""
    field: str
    what: str


def unsatisfiable_rules(policy: ReleasePolicy) -> Iterator[Problem]:
    """Each field that keeps its rule from ever passing; rules that are only recorded may have any limit."""
    suite = policy.spec.suite
    settings: dict[str, ProbeSettings] = {each.probe: each for each in suite.probes}
    for index, rule in enumerate(policy.spec.rules):
        probe = settings[rule.probe]
        missing = probe.setting_missing_for(rule.metric)
        if missing is not None:
            what = f"rule {rule.id} has no figure, because suite probe {probe.probe} lacks `{missing}`"
            yield Problem(index, "metric", f"{what}; add it, or remove the rule")
            continue
        most = probe.most_answers(rule.metric)
        if rule.mode == "audit" or most is None:
            continue
        if most.number < rule.min_samples:
            what = f"rule {rule.id} needs {rule.min_samples} samples, and the suite can give {most.number} at most"
            yield Problem(index, "min_samples", f"{what}; lower min_samples to {most.number} or give more prompts")
        elif _is_bounded_share(rule):
            reach = _reach(most, _largest_alpha(suite, probe.probe, candidates=policy.spec.n_candidates))
            if reach > _room(rule):
                yield Problem(index, rule.bound, _beyond_reach(rule, reach, most.number))


def _largest_alpha(suite: EvalSuite, probe: str, *, candidates: int) -> float:
    """The largest error probability that the probe's intervals have at any look of a first attempt."""
    n_looks = len(suite.sequential.looks) if suite.sequential else 1
    return max(1 - probe_confidence(suite, probe, look, candidates=candidates) for look in range(n_looks))


def _reach(most: MostAnswers, alpha: float) -> float:
    """Upper end of a share where nothing is hit."""
    n = most.number / (1 + (most.each - 1) * LEAST_INTRACLASS_CORRELATION)
    return 1 - math.pow(alpha / 2, 1 / n)


def _is_bounded_share(rule: Rule) -> bool:
    """Whether the limit is one on a share itself."""
    return metric_named(rule.metric).is_share and rule.bound in ("max", "min")


def _room(rule: Rule) -> float:
    """How far a share without hits, or without misses where it is better when higher, may reach."""
    return 1 - rule.limit if rule.bound == "min" else rule.limit


def _beyond_reach(rule: Rule, reach: float, most: int) -> str:
    limit = math.ceil(reach * 1e4) / 1e4
    if rule.bound == "min":
        best = f"without a single miss among {most} samples the interval reaches down to {1 - reach:.4f}"
        fix = f"lower min to {1 - limit:.4f}"
    else:
        best = f"without a single hit among {most} samples the interval reaches {reach:.4f}"
        fix = f"raise max to {limit:.4f}"
    return f"rule {rule.id} can't pass: {best}; {fix} or give more prompts"
