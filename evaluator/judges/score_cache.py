"""Remembers scores on disk, so that no answer is paid for twice.

An entry is named by judge, rubric, question and answer and holds none of their text. Errors that another try could mend
are not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from evaluator.backends.protocol import Advance, silent
from evaluator.judges.judge import TOO_LONG, Answer, Judge, Score
from evaluator.judges.number_scores import NO_NUMBER
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, Record
from policies.contract.judges import Rubric

ANSWERS_AT_ONCE = 128
"""Scores are written after so many; an interruption loses no more."""
LASTING_ERRORS = (NO_NUMBER, TOO_LONG)
"""What another try could not mend."""


class _Content(Record):
    key: Digest
    value: float | None
    error: str | None


class _Entry(Record):
    content: _Content
    content_digest: Digest


class ScoreCache:
    """Scores as JSON files below `folder`, safe to share between processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Digest) -> Score | None:
        """The score under `key`, or None where there is none that matches its digest."""
        try:
            entry = _Entry.model_validate_json(self._path(key).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        intact = entry.content.digest == entry.content_digest and entry.content.key == key
        return Score(entry.content.value, entry.content.error) if intact else None

    def write(self, key: Digest, score: Score) -> None:
        """Keep a score that will not change; any other is left out."""
        if is_lasting(score):
            content = _Content(key=key, value=score.value, error=score.error)
            write_atomically(self._path(key), _Entry(content=content, content_digest=content.digest).canonical())

    def _path(self, key: Digest) -> Path:
        name = key.removeprefix("sha256:")
        return self._folder / name[:2] / f"{name}.json"


class CachedJudge:
    """A judge that is asked only what the cache does not know, and each answer once.

    With `reads` off every answer is asked again, and the cache gets the new scores.
    """

    def __init__(self, judge: Judge, cache: ScoreCache, *, reads: bool = True) -> None:
        self.identity = judge.identity
        self._judge, self._cache, self._reads = judge, cache, reads

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> list[Score]:
        keys = [score_key(self.identity, rubric, answer) for answer in answers]
        unasked = dict(zip(keys, answers, strict=True))
        known: dict[Digest, Score] = {}
        if self._reads:
            known = {key: score for key in unasked if (score := self._cache.read(key)) is not None}
        todo = [key for key in unasked if key not in known]
        advance(len(unasked) - len(todo), len(unasked))
        for start in range(0, len(todo), ANSWERS_AT_ONCE):
            part = todo[start : start + ANSWERS_AT_ONCE]
            tell = _offset(advance, len(known), len(unasked))
            scores = self._judge.score(rubric, [unasked[key] for key in part], tell)
            for key, score in zip(part, scores, strict=True):
                self._cache.write(key, score)
                known[key] = score
        return [known[key] for key in keys]


def score_key(identity: str, rubric: Rubric, answer: Answer) -> Digest:
    """Names a score by all that it depends on."""
    content = json.dumps([identity, rubric, answer.question, answer.answer]).encode()
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _offset(advance: Advance, before: int, total: int) -> Advance:
    """Tells of a part of the work as part of the whole."""
    return lambda done, _: advance(before + done, total)


def is_lasting(score: Score) -> bool:
    """Whether the same judges would say the same again; a panel's error has that of each judge without score."""
    return score.value is not None or all(part.startswith(LASTING_ERRORS) for part in (score.error or "").split("; "))
