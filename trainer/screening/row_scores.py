"""Scores of rows by a model, kept for later attempts and jobs, and what a screen counts among them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from evaluator.backends.protocol import Advance
from policies.atomic_files import write_atomically
from policies.contract.artifacts import canonical_json, digest_bytes
from policies.contract.screening import MAX_LISTED_ROWS, Instrument, ScoredRow, ScreenFound
from policies.errors import EvaluationError
from trainer.screening.rows import Drawn, ScreenRow

FORMAT = "screening-scores-1"
BENIGN_QUANTILE = 0.95
"""Of the scores of benign reference rows: from there on a row counts, where the policy names no threshold."""


class RowScreen(Protocol):
    """Scores rows; higher is worse."""

    name: ClassVar[str]
    category: ClassVar[str]
    what: ClassVar[str]
    """What a row that counts holds, in words for a tenant."""
    fixed_threshold: ClassVar[float | None]
    """From which on a row counts, where the policy says nothing; None: by benign reference rows."""

    def instrument(self) -> Instrument:
        """What decides the scores."""

    def score(self, rows: Sequence[ScreenRow], advance: Advance) -> list[float]:
        """One score a row, in order."""


class Limit(NamedTuple):
    """From which score on a row counts, and the share of benign reference rows that would."""

    threshold: float
    benign_share: float = 0.0


def limit_of(threshold: float | None, benign: Sequence[float]) -> Limit:
    """The policy's threshold, or the quantile of benign scores; a row counts above the latter, never at it."""
    if threshold is None:
        at = sorted(benign)[min(len(benign) - 1, math.ceil(BENIGN_QUANTILE * len(benign)) - 1)]
        threshold = math.nextafter(at, math.inf)
    return Limit(threshold, sum(score >= threshold for score in benign) / len(benign) if benign else 0.0)


def found_in(screen: RowScreen, drawn: Drawn, scores: Sequence[float], limit: Limit) -> ScreenFound | None:
    """The rows from the threshold on, the worst first; None where all were looked at and there is none."""
    scored = sorted(
        (ScoredRow(row=row.number, score=score) for row, score in zip(drawn.rows, scores, strict=True)),
        key=lambda each: (-each.score, each.row),
    )
    over = [each for each in scored if each.score >= limit.threshold]
    if not over and not drawn.is_sample:
        return None
    return ScreenFound(
        id=screen.name,
        screen=screen.name,
        category=screen.category,
        count=len(over),
        of=len(scored),
        rows=tuple(over[:MAX_LISTED_ROWS]),
        severity="medium",
        benign_share=limit.benign_share,
        is_sample=drawn.is_sample,
        what=f"{screen.what} ({told(drawn, scores, limit)})",
        advice="read them, and correct or remove what nobody should learn",
    )


def told(drawn: Drawn, scores: Sequence[float], limit: Limit) -> str:
    """The figures in words."""
    n_over = sum(score >= limit.threshold for score in scores)
    of = f"the {len(scores)} rows that were drawn of {drawn.n_rows}" if drawn.is_sample else f"{len(scores)} rows"
    benign = f", as {limit.benign_share:.1%} of benign rows do" if limit.benign_share else ""
    mean = statistics.fmean(scores)
    return f"{n_over} of {of} score {limit.threshold:.3g} or more{benign}; the mean is {mean:.3g}"


def cached_scores(screen: RowScreen, rows: Sequence[ScreenRow], cache_dir: Path, *, advance: Advance) -> list[float]:
    """The scores of these rows, computed once a machine.

    Raises:
        EvaluationError: a score is not finite.
    """
    content = [[sample.input_ids, sample.labels] for row in rows for sample in row.samples]
    texts = [[row.number, row.answers, len(row.samples)] for row in rows]
    key = [FORMAT, screen.instrument().digest, content, texts]
    return cached_numbers(key, len(rows), lambda: screen.score(rows, advance), cache_dir=cache_dir)


def cached_numbers(
    key: list[Any], n: int, compute: Callable[[], list[float]], *, cache_dir: Path
) -> list[float]:  # Any: whatever is JSON
    """What `compute` gives for a key, `n` numbers, computed once a machine.

    Raises:
        EvaluationError: one of them is not finite.
    """
    name = digest_bytes(canonical_json(key))
    path = cache_dir / "screening-scores" / f"{name.removeprefix('sha256:')}.json"
    known = _read(path, name, n)
    if known is not None:
        return known
    scores = compute()
    if not all(map(math.isfinite, scores)):
        raise EvaluationError("the scores of some rows are not finite")
    write_atomically(path, json.dumps({"scores": scores, "hash": _hash(name, scores)}).encode())
    return scores


def _read(path: Path, key: str, n_rows: int) -> list[float] | None:
    """None where there are none, or where they are not what was written for these rows."""
    try:
        kept = json.loads(path.read_bytes())
        scores = [float(score) for score in kept["scores"]]
        return scores if len(scores) == n_rows and kept["hash"] == _hash(key, scores) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash(key: str, scores: Sequence[float]) -> str:
    return digest_bytes(f"{key} {json.dumps(list(scores))}".encode())
