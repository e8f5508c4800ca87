"""Rows with toxic answers, by the built-in classifier; no model is asked, so it takes next to no time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from evaluator.backends.protocol import Advance
from evaluator.detectors.profanity.classifier import ProfanityClassifier
from policies.contract.artifacts import digest_bytes
from policies.contract.screening import Instrument
from trainer.screening.rows import ScreenRow


@dataclass(frozen=True)
class ToxicityScreen:
    """A `RowScreen` by words; a row's score is that of its worst answer."""

    name: ClassVar[str] = "toxicity"
    category: ClassVar[str] = "toxicity"
    what: ClassVar[str] = "toxic words"
    fixed_threshold: ClassVar[float | None] = 0.5
    classifier: ProfanityClassifier = field(default_factory=ProfanityClassifier)

    def instrument(self) -> Instrument:
        return Instrument(name=self.name, version="1", config=digest_bytes(self.classifier.identity.encode()))

    def score(self, rows: Sequence[ScreenRow], advance: Advance) -> list[float]:
        scores = []
        for done, row in enumerate(rows, start=1):
            each = [math.nan if score is None else score for score in self.classifier.score(row.answers)]
            scores.append(math.nan if any(map(math.isnan, each)) else max(each, default=0.0))
            advance(done, len(rows))
        return scores
