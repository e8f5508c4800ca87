"""The samples that speak most against an adapter, metric by metric, with their text masked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from policies.contract.evaluation import SampleOutcome, SampleRecord
from policies.contract.metrics import metric_named
from policies.contract.probe_overlap import TWIN_MARK
from policies.report.redaction import Masked, mask

SHOWN = 5
"""Samples of one metric."""


class WorstSample(NamedTuple):
    """One sample; scores are per unit of weight, e.g. per token."""

    line: int
    """Of the samples file, from 1."""
    prompt_id: str
    cluster: str
    prompt: Masked
    adapter: Masked | None
    base: Masked | None
    """None where the model chose or was scored, and wrote nothing."""
    adapter_score: float
    base_score: float | None
    """None where the base's answer does not count."""

    @property
    def change(self) -> float:
        return 0.0 if self.base_score is None else self.adapter_score - self.base_score


class WorstSamples(NamedTuple):
    """The worst samples of a metric, worst first."""

    metric: str
    samples: tuple[WorstSample, ...]
    n_bad: int
    """Those that are like them: hits of a share, otherwise samples that are worse than the base's."""
    n_scored: int
    is_share: bool


def worst_samples(records: Sequence[SampleRecord]) -> tuple[WorstSamples, ...]:
    """For each metric that has bad samples: first those that fell most against the base, then those that are worst.

    Those of secret prompts are not among them.

    Args:
        records: all lines of the samples file, in order.
    """
    shown = [None if record.prompt_id.startswith(TWIN_MARK) else record for record in records]
    found = (_worst(metric, shown) for metric in dict.fromkeys(record.metric for record in shown if record))
    return tuple(each for each in found if each.n_bad)


def _worst(metric: str, records: Sequence[SampleRecord | None]) -> WorstSamples:
    unit, higher_is_better = metric_named(metric)
    is_share, best, harm = unit.startswith("share"), float(higher_is_better), -1.0 if higher_is_better else 1.0
    lines = [(line, record) for line, record in enumerate(records, start=1) if record and record.metric == metric]
    scored = [sample for line, record in lines if (sample := _sample(line, record))]
    bad = [each for each in scored if (each.adapter_score != best if is_share else harm * each.change > 0)]
    bad.sort(key=lambda each: (harm * each.change, harm * each.adapter_score), reverse=True)
    return WorstSamples(metric, tuple(bad[:SHOWN]), len(bad), len(scored), is_share)


def _sample(line: int, record: SampleRecord) -> WorstSample | None:
    """The sample with its text masked; None where the adapter's answer does not count."""
    score = _score(record.adapter)
    if score is None:
        return None
    return WorstSample(
        line=line,
        prompt_id=record.prompt_id,
        cluster=record.cluster,
        prompt=mask(record.prompt),
        adapter=None if record.adapter.output is None else mask(record.adapter.output),
        base=None if record.base.output is None else mask(record.base.output),
        adapter_score=score,
        base_score=_score(record.base),
    )


def _score(outcome: SampleOutcome) -> float | None:
    """The score per unit of weight; None where it does not count."""
    if outcome.score is None or outcome.weight <= 0 or not math.isfinite(outcome.score):
        return None
    return outcome.score / outcome.weight
