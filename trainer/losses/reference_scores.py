"""Log-probabilities that the base model gives to the data's own tokens: one pass over the data, kept for later runs.

The pass runs in the first step, inside the contexts of that step, so that reference and policy see the same. What it
finds is cached under a digest of base model, contexts, and token ids with labels, which hold data and chat template.
The file carries a hash of its content and of that digest, so neither changed scores nor another run's are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from evaluator.backends.rendering import pad_batch
from evaluator.length_batches import length_batches
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, canonical_json, digest_bytes
from policies.errors import DefenseError
from policies.rendering.encoding import IGNORED
from trainer.data import TokenisedRow
from trainer.losses.label_log_probs import score_tokens
from trainer.training_step import Batch, TrainingStep

BATCH_TOKENS = 4096
"""Tokens in one forward, padding included."""
FORMAT = "reference-scores-3"
HASH = "hash"


class ReferenceScores:
    """The base model's log-probabilities of all rows of a run; computed or read at the first look-up."""

    def __init__(self, rows: Sequence[TokenisedRow], *, key: Digest, cache_dir: Path) -> None:
        self._all_rows, self._key, self._cache_dir = rows, key, cache_dir
        self._scores: dict[bytes, Tensor] | None = None

    @cached_property
    def _rows(self) -> dict[bytes, TokenisedRow]:
        return {_row_key(row.input_ids, _has_loss(row)): row for row in self._all_rows}

    @cached_property
    def _path(self) -> Path:
        digest = _digest(self._key, list(self._rows.values()))
        return self._cache_dir / "reference-scores" / f"{digest}.safetensors"

    def of(self, step: TrainingStep, report: Callable[[str], None]) -> Tensor:
        """float32 [tokens with a loss], in the order of `step.log_probs[completion mask]`."""
        if self._scores is None:
            self._scores = self._read() or self._compute(step, report)
        found = [self._scores.get(key) for key in _keys_of(step)]
        if any(scores is None for scores in found):
            raise DefenseError("a row of this batch was missing when the reference was scored")
        return torch.cat([scores for scores in found if scores is not None]).to(step.log_probs.device)

    def _read(self) -> dict[bytes, Tensor] | None:
        if not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                flat = file.get_tensor("log_probs").clone()  # what is hashed can't change with the file any more
                stored = (file.metadata() or {}).get(HASH)
        except SafetensorError as error:
            raise DefenseError(f"{self._path} can't be read ({error}); remove it") from error
        if stored != self._hash(flat):
            raise DefenseError(f"{self._path} does not hold this run's scores; remove it")
        lengths = [sum(_has_loss(row)) for row in self._rows.values()]
        return dict(zip(self._rows, flat.split(lengths), strict=True))

    def _hash(self, flat: Tensor) -> Digest:
        return digest_bytes(self._path.stem.encode() + flat.numpy().tobytes())

    def _compute(self, step: TrainingStep, report: Callable[[str], None]) -> dict[bytes, Tensor]:
        scores: dict[bytes, Tensor] = {}
        every_key, lengths = list(self._rows), [len(row.input_ids) for row in self._rows.values()]
        for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
            keys = [every_key[index] for index in batch]
            scores |= _score([self._rows[key] for key in keys], keys, step)
            report(f"Reference log-probabilities: {len(scores)}/{len(self._rows)} rows")
        flat = torch.cat([scores[key] for key in self._rows])
        if not torch.isfinite(flat).all():
            raise DefenseError("the base model's log-probabilities of the data are not finite")
        write_atomically(self._path, save({"log_probs": flat}, metadata={HASH: self._hash(flat)}))
        return scores


@torch.no_grad()
def scored_again(step: TrainingStep) -> Tensor:
    """What `ReferenceScores.of` gives, from the reference's forward of this micro-batch: they differ by rounding."""
    hidden, mask = step.model.shared_reference(), step.micro_batch.completion_mask[:, :-1]
    head, ids = step.model.head(), step.micro_batch.tokens.input_ids[:, 1:][mask]
    return score_tokens(hidden[:, :-1][mask].to(head.weight.dtype), head, ids).log_probs


@torch.no_grad()
def _score(rows: Sequence[TokenisedRow], keys: Sequence[bytes], step: TrainingStep) -> dict[bytes, Tensor]:
    device = step.hidden.device
    ids, mask = pad_batch([row.input_ids for row in rows], 0, left=False, device=device)
    labels, _ = pad_batch([row.labels for row in rows], IGNORED, left=False, device=device)
    hidden = step.model.reference(Batch(ids, mask))
    wanted = labels[:, 1:] != IGNORED
    head = step.model.head()
    scores = score_tokens(hidden[:, :-1][wanted].to(head.weight.dtype), head, labels[:, 1:][wanted])
    return dict(zip(keys, scores.log_probs.cpu().split(wanted.sum(1).tolist()), strict=True))


def _keys_of(step: TrainingStep) -> list[bytes]:
    """The keys of a micro-batch's rows, without padding, and taken apart where rows are packed."""
    micro_batch, (ids, attention_mask, positions) = step.micro_batch, step.micro_batch.tokens
    if attention_mask is None and positions is not None:
        lengths = (positions[0] == 0).nonzero()[:, 0].diff(append=positions.new_tensor([ids.shape[1]])).tolist()
        rows = list(zip(ids[0].split(lengths), micro_batch.completion_mask[0].split(lengths), strict=True))
    else:
        kept = micro_batch.attention_mask.sum(1).tolist()
        rows = [(ids[i, :length], micro_batch.completion_mask[i, :length]) for i, length in enumerate(kept)]
    return [_row_key(each.tolist(), mask.tolist()) for each, mask in rows]


def _has_loss(row: TokenisedRow) -> list[bool]:
    """Whether the token after each position has a loss."""
    return [label != IGNORED for label in row.labels[1:]] + [False]


def _row_key(ids: Sequence[int], has_loss: Sequence[bool]) -> bytes:
    return hashlib.blake2b(repr((list(ids), list(has_loss))).encode(), digest_size=16).digest()


def _digest(key: Digest, rows: Sequence[TokenisedRow]) -> str:
    content = canonical_json([FORMAT, key, [[row.input_ids, row.labels] for row in rows]])
    return hashlib.sha256(content).hexdigest()
