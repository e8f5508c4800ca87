"""What models did on prompts: samples with their scores, in pairs of adapter and base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policies.contract.evaluation import SampleOutcome, SampleRecord
from policies.errors import EvaluationError


class Sample(SampleOutcome):
    """What one model did on one prompt, and its score."""

    prompt_id: str
    cluster: str
    """Prompts of one cluster are not independent of each other."""
    prompt: str
    metric: str
    """The metric that the score counts for."""

    @property
    def outcome(self) -> SampleOutcome:
        return SampleOutcome(**{name: getattr(self, name) for name in SampleOutcome.model_fields})


class Pair(NamedTuple):
    """The samples of adapter and base on one prompt."""

    adapter: Sample
    base: Sample

    @property
    def is_scored(self) -> bool:
        return self.adapter.score is not None and self.base.score is not None


def pair_samples(adapter: Sequence[Sample], base: Sequence[Sample]) -> tuple[Pair, ...]:
    """Adapter and base samples of the same prompts, in order; anything else is an error."""
    keys = [[(sample.metric, sample.prompt_id) for sample in samples] for samples in (adapter, base)]
    if keys[0] != keys[1] or len(set(keys[0])) != len(keys[0]):
        raise EvaluationError("adapter and base were not sampled on the same prompts")
    if not adapter:
        raise EvaluationError("the probe produced no samples")
    return tuple(Pair(a, b) for a, b in zip(adapter, base, strict=True))


def join_pairs(before: Sequence[Pair], new: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs of two looks, with all answers to a prompt; an answer that both have is an error."""
    joined = (*before, *new)
    if len({(pair.base.metric, pair.base.prompt_id) for pair in joined}) != len(joined):
        raise EvaluationError("an answer was sampled at two looks")
    return joined


def sample_record(probe: str, pair: Pair) -> SampleRecord:
    """A pair as it is stored."""
    adapter, base = pair
    return SampleRecord(
        probe=probe,
        metric=adapter.metric,
        prompt_id=adapter.prompt_id,
        cluster=adapter.cluster,
        prompt=adapter.prompt,
        adapter=adapter.outcome,
        base=base.outcome,
    )
