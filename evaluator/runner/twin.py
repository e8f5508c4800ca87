"""The secret twin of a probe's prompts: asked beside the known ones, judged with them, and shown to nobody.

The figure of a metric is that of the set that looks worse (`evaluator/statistics/worst_case.py`), so good answers to
the public prompts alone release nothing. What is sampled on the twin leaves the evaluator without its text: an id, a
category and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.prompt_sets import LoadedPrompts, load_prompts, parse_prompts
from evaluator.runner.registry import AnyProbe
from evaluator.samples import Pair, Sample
from evaluator.statistics.gap_test import gap_test
from evaluator.statistics.worst_case import Measure, worst_case
from policies.contract.evaluation import Measurement, SampleRecord
from policies.contract.probe_overlap import TWIN_MARK, GapTest, TwinResult
from policies.contract.probe_record import Twin
from policies.contract.store import ArtifactStore
from policies.contract.suite import ProbeSettings
from policies.errors import EvaluationError, IntegrityError, NotAtHandError, TunegateError

WITHHELD = "(a secret prompt)"
"""Stands for what was asked of a twin."""
_PARTS = ("public", "twin")


def load_twin(probe: str, twin: Twin, store: ArtifactStore | None) -> LoadedPrompts:
    """The twin, checked against its digest.

    Raises:
        EvaluationError: it can't be had, or it is another one than the policy says.
    """
    try:
        return load_prompts(probe, twin.prompts, store)
    except (TunegateError, OSError) as error:
        cause = "has another digest" if isinstance(error, IntegrityError) else "can't be read"
        raise NotAtHandError(f"the secret twin of {probe}'s prompts {cause} here, so nothing is measured") from error


def twin_items(
    probe: AnyProbe, settings: ProbeSettings, twin: LoadedPrompts, *, known: Sequence[PromptItem]
) -> tuple[PromptItem, ...]:
    """The twin's prompts without those of categories that the suite leaves out; as many as there are known ones.

    Raises:
        EvaluationError: it is no prompt set of the probe, has other numbers, or prompts of the known set.
    """
    try:
        parsed: tuple[PromptItem, ...] = parse_prompts(twin.content, probe.item_type)
    except EvaluationError:
        raise EvaluationError(f"the secret twin is no prompt set of {probe.name}") from None
    items = tuple(item for item in parsed if item.group not in settings.left_out)
    if len(items) != len(known):
        raise EvaluationError(
            f"the secret twin has {len(items)} prompts for {len(known)} known ones; it needs as many, or the worse of "
            "the two can't be told"
        )
    same = {_without_id(item) for item in items} & {_without_id(item) for item in known}
    if same:
        raise EvaluationError(f"{len(same)} prompts of the secret twin are in the known set, so it is not secret")
    return items


def marked(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Pairs of the twin, by ids that tell them from all others."""
    return tuple(Pair(*(_named(sample, TWIN_MARK + sample.prompt_id) for sample in pair)) for pair in pairs)


def measured(
    probe: AnyProbe, settings: ProbeSettings, pairs: Sequence[Pair], confidence: float
) -> tuple[Measurement, ...]:
    """The probe's figures; where it has a twin, those of the worse set.

    Raises:
        EvaluationError: there are no figures, or pairs of the twin are missing or where none belong.
    """
    known, secret = _split(pairs)
    if (settings.secret_twin is not None) is not bool(secret):
        raise EvaluationError(f"{probe.name} was measured {'without its' if not secret else 'with a'} secret twin")
    if not secret:
        found: tuple[Measurement, ...] = probe.measure(settings, known, confidence)
        return found
    parts = dict(zip(_PARTS, (known, secret), strict=True))
    return tuple(
        worst_case(parts, _measure_of(probe, settings, metric), confidence)
        for metric in _metrics(probe, settings, known, secret)
    )


def twin_result(
    probe: AnyProbe, settings: ProbeSettings, pairs: Sequence[Pair], twin: LoadedPrompts | None
) -> TwinResult | None:
    """What the twin showed; None where there is none or nothing was measured."""
    _, secret = _split(pairs)
    if settings.secret_twin is None or twin is None or not secret:
        return None
    return TwinResult(
        prompts=twin.digest,
        n_prompts=len({pair.adapter.prompt_id for pair in secret}),
        gaps=gaps(probe, settings, pairs),
    )


def gaps(probe: AnyProbe, settings: ProbeSettings, pairs: Sequence[Pair]) -> tuple[GapTest, ...]:
    """The gap test of each metric that both sets have a figure of."""
    known, secret = _split(pairs)
    if settings.secret_twin is None:
        return ()
    found = (
        gap_test(known, secret, _measure_of(probe, settings, metric), settings=settings.secret_twin)
        for metric in _metrics(probe, settings, known, secret)
    )
    return tuple(test for test in found if test is not None)


def without_text(record: SampleRecord) -> SampleRecord:
    """A sample of a twin as it is stored: the prompt, and answers and errors that may quote it, are left out."""
    if not record.prompt_id.startswith(TWIN_MARK):
        return record
    sides = {
        name: outcome.model_copy(update={"output": None, "error": None if outcome.error is None else "not scored"})
        for name, outcome in (("adapter", record.adapter), ("base", record.base))
    }
    return record.model_copy(update={"prompt": WITHHELD, **sides})


def _split(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Pairs of the known prompts, and those of the twin by the ids that probes gave them."""
    known = [pair for pair in pairs if not pair.adapter.prompt_id.startswith(TWIN_MARK)]
    secret = [pair for pair in pairs if pair.adapter.prompt_id.startswith(TWIN_MARK)]
    unmarked = [Pair(*(_named(each, each.prompt_id.removeprefix(TWIN_MARK)) for each in pair)) for pair in secret]
    return known, unmarked


def _named(sample: Sample, prompt_id: str) -> Sample:
    return sample.model_copy(update={"prompt_id": prompt_id})


def _metrics(
    probe: AnyProbe, settings: ProbeSettings, known: Sequence[Pair], secret: Sequence[Pair]
) -> tuple[str, ...]:
    """Of both sets, which must have the same ones."""
    of_known, of_secret = ([each.metric for each in probe.measure(settings, part, 0.5)] for part in (known, secret))
    if of_known != of_secret:
        raise EvaluationError(f"the secret twin of {probe.name} has no prompts for {set(of_known) ^ set(of_secret)}")
    return tuple(of_known)


def _measure_of(probe: AnyProbe, settings: ProbeSettings, metric: str) -> Measure:
    def measure(pairs: Sequence[Pair], confidence: float) -> Measurement:
        return next(each for each in probe.measure(settings, pairs, confidence) if each.metric == metric)

    return measure


def _without_id(item: PromptItem) -> Any:  # Any: a copy of an item, to be compared
    return item.model_copy(update={"id": "-"})
