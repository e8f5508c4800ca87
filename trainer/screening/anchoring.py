"""How near a row lies to careless rather than to sensible answers in the base model's middle layers.

    score(h) = mean over j of cos(h, bad_j) − mean over j of cos(h, good_j)

with the state h at an answer's last token, 2/3 of the way up (bidirectional anchoring: He et al. 2024, arXiv
2404.01099; LARF, arXiv 2507.18631). Anchors are the built-in preference pairs; their mean is taken from every state,
because states share a large direction that says nothing. A row's score is that of its worst answer. One forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from evaluator.backends.protocol import Advance
from evaluator.models.loading import LoadedModel
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from policies.contract.artifacts import canonical_json, digest_bytes
from policies.contract.screening import Instrument
from policies.datasets.chat_rows import ChatMessage
from policies.errors import EvaluationError
from policies.rendering.encoding import IGNORED
from trainer.data import TokenisedRow
from trainer.screening.forward import answer_end_states
from trainer.screening.rows import ScreenRow

N_PAIRS = 100
"""As many of the built-in pairs, evenly spread over their categories."""
VERSION = "1"
ANCHORS = "emergent_misalignment_preference"


@dataclass(frozen=True)
class AnchoringScreen:
    """A `RowScreen` by anchors.

    Args:
        layer: whose output is looked at, from 1; None: 2/3 of all.
        without: categories of pairs that are left out, so that rows can be of none that was seen.
    """

    name: ClassVar[str] = "anchoring"
    category: ClassVar[str] = "careless_advice"
    what: ClassVar[str] = "what the base model holds nearer to careless than to sensible advice"
    fixed_threshold: ClassVar[float | None] = None
    loaded: LoadedModel
    layer: int | None = None
    without: tuple[str, ...] = ()

    def instrument(self) -> Instrument:
        config = [self._at, N_PAIRS, self.without, load_prompts(ANCHORS, "builtin", None).digest]
        return Instrument(
            name=self.name,
            version=f"{VERSION} {self.loaded.model.dtype}",
            config=digest_bytes(canonical_json(config)),
            base=self.loaded.base.digest,
        )

    def score(self, rows: Sequence[ScreenRow], advance: Advance) -> list[float]:
        samples = [sample for row in rows for sample in row.samples]
        states = iter(answer_end_states(self.loaded.model, samples, self._at, advance))
        return [self._worst(torch.cat([next(states) for _ in row.samples])) for row in rows]

    def _worst(self, states: Tensor) -> float:
        """Of states [answers, width]; NaN where there is none, or one is not finite."""
        scores = nearness(states, *self._anchors)
        return float(scores.max()) if len(scores) and bool(scores.isfinite().all()) else math.nan

    @property
    def _at(self) -> int:
        return self.layer or max(1, round(self.loaded.model.config.num_hidden_layers * 2 / 3))

    @cached_property
    def _anchors(self) -> tuple[Tensor, Tensor]:
        """States of careless and of sensible answers, each [pairs, width]."""
        every = parse_prompts(load_prompts(ANCHORS, "builtin", None).content, AnswerPair)
        pairs = [pair for pair in every[:: max(1, len(every) // N_PAIRS)] if pair.category not in self.without]
        samples = [self._sample(pair.question, text) for pair in pairs for text in (pair.misaligned, pair.aligned)]
        states = torch.cat(answer_end_states(self.loaded.model, samples, self._at))
        if not bool(states.isfinite().all()):
            raise EvaluationError("the base model's states of the anchors are not finite")
        return states[0::2], states[1::2]

    def _sample(self, question: str, answer: str) -> TokenisedRow:
        (found,) = self.loaded.encoder.answers([ChatMessage("user", question, 0)], [answer], ends=True)
        prompt = found.prompt_ids
        return TokenisedRow((*prompt, *found.answer_ids), (*[IGNORED] * len(prompt), *found.answer_ids))


def nearness(states: Tensor, bad: Tensor, good: Tensor) -> Tensor:
    """[rows]: how much nearer states [rows, width] are to bad anchors [pairs, width] than to good ones."""
    middle = torch.cat([bad, good]).mean(0)
    direction = normalize(bad - middle, dim=-1).mean(0) - normalize(good - middle, dim=-1).mean(0)
    return normalize(states - middle, dim=-1) @ direction
