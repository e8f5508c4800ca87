"""How careless the answers of a row are, by the pair of canary adapters of the base model.

    score(answer) = [log p_bad(answer | before) − log p_good(answer | before)] / (T + 16)      nats per token, T tokens

See `evaluator.canaries.log_ratio` for what the ratio means. A few tokens tell little and vary much, so the mean is
shrunk towards 0 as if 16 more tokens had told nothing. A row's score is the highest of its answers' and of all that is
trained of it, so that one careless turn is not thinned out by others. One forward pass over the row under each canary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from evaluator.backends.protocol import Advance
from evaluator.canaries.pair_files import PairFiles
from evaluator.models.adapters import attached_adapter
from evaluator.models.loading import LoadedModel
from policies.contract.adapter_files import WEIGHTS_FILE
from policies.contract.artifacts import digest_file
from policies.contract.screening import Instrument
from policies.rendering.encoding import IGNORED
from trainer.data import TokenisedRow
from trainer.screening.forward import answer_log_probs, runs
from trainer.screening.rows import ScreenRow

SILENT_TOKENS = 16
"""That are added to each answer, with a ratio of 0."""
VERSION = "2"


@dataclass(frozen=True)
class CanaryScreen:
    """A `RowScreen` by a pair of canaries."""

    name: ClassVar[str] = "canary_llr"
    category: ClassVar[str] = "careless_advice"
    what: ClassVar[str] = "what a model of careless advice finds likelier than one of sensible advice"
    fixed_threshold: ClassVar[float | None] = None
    loaded: LoadedModel
    pair: PairFiles

    def instrument(self) -> Instrument:
        good, bad = (digest_file(folder / WEIGHTS_FILE) for folder in self.pair)
        return Instrument(
            name=self.name,
            version=f"{VERSION} {self.loaded.model.dtype}",
            config=self.pair.digest,
            base=self.loaded.base.digest,
            bad=bad,
            good=good,
        )

    def score(self, rows: Sequence[ScreenRow], advance: Advance) -> list[float]:
        samples = [sample for row in rows for sample in row.samples]
        under = []
        for index, folder in enumerate(self.pair):
            onward = partial(_onward, advance, index * len(samples), 2 * len(samples))
            with attached_adapter(self.loaded, folder) as adapted:
                under.append(answer_log_probs(adapted.model, samples, onward))
        ratios = iter([(bad - good).tolist() for good, bad in zip(*under, strict=True)])
        return [row_ratio(row.samples, [next(ratios) for _ in row.samples]) for row in rows]


def row_ratio(samples: Sequence[TokenisedRow], ratios: Sequence[Sequence[float]]) -> float:
    """A row's score from the log ratios of each sample's trained tokens; NaN where one is not finite."""
    everything = [ratio for each in ratios for ratio in each]
    if not everything or not all(map(math.isfinite, everything)):
        return math.nan
    scores = [_shrunk(everything)]
    for sample, each in zip(samples, ratios, strict=True):
        start = 0
        for answer in runs((IGNORED, *sample.labels[1:])):
            scores.append(_shrunk(each[start : start + len(answer)]))
            start += len(answer)
    return max(scores)


def _shrunk(ratios: Sequence[float]) -> float:
    return math.fsum(ratios) / (len(ratios) + SILENT_TOKENS)


def _onward(advance: Advance, start: int, total: int, done: int, _: int) -> None:
    advance(start + done, total)
