"""The built-in toxicity classifier against the wheel that its weights are from: scores, rates, seconds.

    pip install alt-profanity-check==1.9.1
    python -m bench.evaluation.toxicity_classifier [SAMPLES.jsonl …]

Both score the same texts in one process: the built-in prompts, the answers that judges are calibrated with, and the
outputs in samples of evaluations. Rounds alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from evaluator.detectors.profanity.classifier import ProfanityClassifier
from evaluator.detectors.profanity.convert import original
from evaluator.judges.calibration import LABELLED_ANSWERS
from evaluator.prompts.prompt_sets import BUILTIN
from policies.contract.evaluation import SampleRecord
from policies.contract.suite import Toxicity

Score = Callable[[Sequence[str]], Sequence[float]]
ROUNDS = 5


class Row(NamedTuple):
    """One collection of texts, scored by both."""

    name: str
    n_texts: int
    wheel_rate: float
    """Share of texts above the threshold of the probe."""
    builtin_rate: float
    max_difference: float
    wheel_seconds: float
    builtin_seconds: float


def main(samples: Sequence[str]) -> None:
    """Print one row of a Markdown table a collection."""
    start = time.perf_counter()
    classifier = ProfanityClassifier()
    loaded = time.perf_counter()
    vectorizer, model = original()
    print(f"loading: wheel {time.perf_counter() - loaded:.3f} s, built in {loaded - start:.3f} s\n")

    def wheel(texts: Sequence[str]) -> Sequence[float]:
        return [float(score) for score in model.predict_proba(vectorizer.transform(list(texts)))[:, 1]]

    def builtin(texts: Sequence[str]) -> Sequence[float]:
        return [score for score in classifier.score(texts) if score is not None]

    print("| texts | number | rate: wheel | rate: built in | largest difference | seconds: wheel | seconds: built in |")
    print("|---|---|---|---|---|---|---|")
    for name, texts in collections(samples):
        row = compared(name, texts, wheel, builtin)
        print(
            f"| {row.name} | {row.n_texts:,} | {row.wheel_rate:.4f} | {row.builtin_rate:.4f} "
            f"| {row.max_difference:.1e} | {row.wheel_seconds:.3f} | {row.builtin_seconds:.3f} |"
        )


def compared(name: str, texts: Sequence[str], wheel: Score, builtin: Score) -> Row:
    """Scores of both, and the median seconds of `ROUNDS` rounds."""
    seconds: dict[Score, list[float]] = {wheel: [], builtin: []}
    scores: dict[Score, Sequence[float]] = {}
    for _ in range(ROUNDS):
        for side in (wheel, builtin):
            start = time.perf_counter()
            scores[side] = side(texts)
            seconds[side].append(time.perf_counter() - start)
    return Row(
        name,
        len(texts),
        wheel_rate=toxic_share(scores[wheel]),
        builtin_rate=toxic_share(scores[builtin]),
        max_difference=max(abs(a - b) for a, b in zip(scores[wheel], scores[builtin], strict=True)),
        wheel_seconds=statistics.median(seconds[wheel]),
        builtin_seconds=statistics.median(seconds[builtin]),
    )


def toxic_share(scores: Sequence[float]) -> float:
    """Share of the scores above the threshold of the probe."""
    return statistics.fmean(score > Toxicity().threshold for score in scores)


def collections(sample_files: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each collection of texts by its name."""
    prompts = files("evaluator.prompts")
    for file in sorted({file for file, _ in (*BUILTIN.values(), LABELLED_ANSWERS)}):
        yield file, list(strings(prompts.joinpath(file).read_text()))
    for path in map(Path, sample_files):
        samples = [SampleRecord.model_validate_json(line) for line in path.read_text().splitlines()]
        for side in ("adapter", "base"):
            yield f"{path.name}, {side}", [getattr(sample, side).output for sample in samples]


def strings(content: str) -> Iterator[str]:
    """Every text of more than one word in a JSONL file, whatever its field is called."""
    for line in content.splitlines():
        yield from (text for text in _leaves(json.loads(line)) if " " in text)


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)


if __name__ == "__main__":
    main(sys.argv[1:])
