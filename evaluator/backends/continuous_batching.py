"""Decodes many answers at once; a row that has ended makes room for the next prompt.

The tokens that all prompts start with run once, equal prompts run once, and only the last position of a row goes
through the output layer. The tokens are those of `transformers`' greedy search, up to rounding: a row's hidden states
do not depend on the rows beside it. Sampling adds Gumbel noise that depends on the request alone (`seeded_sampling`).

Rows end at the same place of the batch and have padding in front or after the shared prefix; positions are counted over
real tokens. This is right only for models of which `CausalParts` and `RoomyCache` say so; all others are left to
`transformers`' own `generate` (`transformers_backend`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from evaluator.backends.causal_parts import CausalParts, shared_prefix
from evaluator.backends.kv_cache import RoomyCache
from evaluator.backends.rendering import pad_batch
from evaluator.backends.seeded_sampling import gumbel_noise

COMPACT_SHARE = 8
"""Rows leave the batch once an eighth of it has ended: leaving copies all rows that stay."""
REFILL_SHARE = 4
"""New prompts run once a quarter of the places is free, so that they run together."""


class GenerationRequest(NamedTuple):
    """A prompt and the seed of its answer."""

    ids: list[int]
    seed: int


class Decoding(NamedTuple):
    """How answers are decoded, and how much is computed at once."""

    ends: frozenset[int]
    pad: int
    max_new_tokens: int
    temperature: float
    rows: int
    prompt_tokens: int
    """In one pass over new prompts, padding included."""


@dataclass
class _Row:
    """An answer on its way."""

    request: int
    noise: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    has_ended: bool = False


class _Batch(NamedTuple):
    """Rows and the tokens that they have in the cache."""

    rows: list[_Row]
    mask: Tensor
    cache: RoomyCache


def decode(
    parts: CausalParts, requests: Sequence[GenerationRequest], decoding: Decoding, *, done: Callable[[int], None]
) -> list[list[int]]:
    """The new tokens of every request in order, the end token included where it came.

    Args:
        parts: The model.
        requests: Prompts; none may be empty.
        decoding: The settings.
        done: Called with the number of finished answers whenever it grows.
    """
    return _Decoder(parts, requests, decoding).run(done)


class _Decoder:
    """The requests that wait, the batch that runs, and the answers."""

    def __init__(self, parts: CausalParts, requests: Sequence[GenerationRequest], decoding: Decoding) -> None:
        self._parts, self._requests, self._decoding = parts, requests, decoding
        self._answers: dict[int, list[int]] = {}
        self._prefix = shared_prefix([request.ids for request in requests])
        self._prefix_cache = self._run_prefix() if self._prefix else None
        self._waiting = deque(sorted(range(len(requests)), key=lambda index: len(requests[index].ids)))
        self._batch: _Batch | None = None

    def run(self, done: Callable[[int], None]) -> list[list[int]]:
        while self._waiting or self._batch is not None:
            finished = len(self._answers)
            self._admit()
            if self._batch is not None:
                self._batch = self._step(self._batch)
            if len(self._answers) > finished:
                done(len(self._answers))
        return [self._answers[index] for index in range(len(self._requests))]

    def _run_prefix(self) -> RoomyCache:
        cache = RoomyCache.of(self._parts.config)
        ids = torch.tensor([self._prefix], device=self._parts.device)
        self._parts.hidden(ids, torch.ones_like(ids), cache)
        return cache

    def _new_cache(self, rows: int) -> RoomyCache:
        if self._prefix_cache is None:
            return RoomyCache.of(self._parts.config)
        return self._prefix_cache.copy(torch.zeros(rows, dtype=torch.long, device=self._parts.device))

    def _admit(self) -> None:
        """Start waiting prompts while there is room for enough of them."""
        while self._waiting and self._free >= self._wanted_places():
            started = self._start(self._next_prompts(self._free))
            if started is None:  # all of them ended with their first token
                continue
            self._batch = started if self._batch is None else _joined(self._batch, started)

    @property
    def _free(self) -> int:
        """Places for further rows."""
        return self._decoding.rows - (0 if self._batch is None else len(self._batch.rows))

    def _wanted_places(self) -> float:
        """How many must be free before waiting prompts start: a share of all, or enough for the last ones."""
        return max(1, min(self._decoding.rows / REFILL_SHARE, len(self._waiting)))

    def _next_prompts(self, free: int) -> list[int]:
        """Indices of waiting requests, shortest first, for one pass."""
        chosen = [self._waiting.popleft()]
        while self._waiting and len(chosen) < free:
            width = len(self._requests[self._waiting[0]].ids) - len(self._prefix)
            if width * (len(chosen) + 1) > self._decoding.prompt_tokens:
                break
            chosen.append(self._waiting.popleft())
        return chosen

    def _start(self, indices: list[int]) -> _Batch | None:
        """Run prompts, each once however often it is asked, and choose the first tokens."""
        prompts = [tuple(self._requests[index].ids[len(self._prefix) :]) for index in indices]
        distinct = {ids: place for place, ids in enumerate(dict.fromkeys(prompts))}
        ids, mask = pad_batch(list(distinct), self._decoding.pad, left=True, device=self._parts.device)
        mask = torch.cat([mask.new_ones(len(distinct), len(self._prefix)), mask], dim=1)
        cache = self._new_cache(len(distinct))
        last = self._parts.hidden(ids, mask, cache)[:, -1]
        if len(distinct) < len(prompts):
            places = torch.tensor([distinct[ids] for ids in prompts], device=self._parts.device)
            last, mask = last[places], mask[places]
            cache.select(places)
        rows = [_Row(index, self._noise(self._requests[index])) for index in indices]
        return self._advanced(_Batch(rows, mask, cache), last)

    def _noise(self, request: GenerationRequest) -> torch.Generator | None:
        if self._decoding.temperature == 0:
            return None
        return torch.Generator(self._parts.device).manual_seed(request.seed)

    def _step(self, batch: _Batch) -> _Batch | None:
        """Run the last token of every row, and choose the next; rows that have ended stay where they are."""
        ids = torch.tensor([[row.tokens[-1]] for row in batch.rows], device=self._parts.device)
        runs = torch.tensor([[int(not row.has_ended)] for row in batch.rows], device=self._parts.device)
        mask = torch.cat([batch.mask, runs], dim=1)
        hidden = self._parts.hidden(ids, mask, batch.cache)[:, -1]
        return self._advanced(batch._replace(mask=mask), hidden)

    def _advanced(self, batch: _Batch, hidden: Tensor) -> _Batch | None:
        """The batch with one more token a row, without rows that have ended; None where all have."""
        for row, token in zip(batch.rows, self._choose(batch.rows, hidden), strict=True):
            if row.has_ended:
                continue
            row.tokens.append(token)
            row.has_ended = token in self._decoding.ends or len(row.tokens) == self._decoding.max_new_tokens
            if row.has_ended:
                self._answers[row.request] = row.tokens
        return _compacted(batch)

    def _choose(self, rows: Sequence[_Row], hidden: Tensor) -> list[int]:
        logits = self._parts.logits(hidden)
        generators = [row.noise for row in rows if row.noise is not None]
        if generators:
            logits = logits / self._decoding.temperature + gumbel_noise(generators, logits.shape[-1])
        chosen: list[int] = logits.argmax(-1).tolist()
        return chosen


def _compacted(batch: _Batch) -> _Batch | None:
    """The batch without its ended rows, where they are many enough to be worth it."""
    running = [place for place, row in enumerate(batch.rows) if not row.has_ended]
    if not running:
        return None
    if len(batch.rows) - len(running) < len(batch.rows) / COMPACT_SHARE:
        return batch
    places = torch.tensor(running, device=batch.mask.device)
    mask = batch.mask[places]
    first = int(mask.any(0).to(torch.int8).argmax())
    batch.cache.select(places, first=first)
    return _Batch([batch.rows[place] for place in running], mask[:, first:], batch.cache)


def _joined(batch: _Batch, new: _Batch) -> _Batch:
    batch.cache.join(new.cache)
    width = max(batch.mask.shape[1], new.mask.shape[1])
    masks = [torch.nn.functional.pad(each.mask, (width - each.mask.shape[1], 0)) for each in (batch, new)]
    return _Batch([*batch.rows, *new.rows], torch.cat(masks), batch.cache)
