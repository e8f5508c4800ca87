"""Follows the figures of the trained canaries from self-test to self-test: the adapters stay, so the figures should.

Drift of judge, classifier, library or machine shows here long before a canary comes out wrong. The capital that bets
against "nothing changed" begins at 1 and is spread over all figures' e-processes E,

    M_t = Σ_i c_i(t),    c_i(t) = c_i(t − 1) · E_i(t) / E_i(t − 1),

evenly at first. A figure that first appears later gets its even share of what there is then, from all others: no
capital is added or lost, and M stays a martingale, whose mean is 1. What it was before does not change, and its highest
value counts and is kept: what has drifted once has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from evaluator.self_test.exchangeability import THRESHOLD, e_values
from policies.atomic_files import write_atomically
from policies.contract.self_test import CanaryName, Drift, DriftHistory, SelfTestReport
from policies.errors import ConfigurationError

TRAINED: tuple[CanaryName, ...] = ("good", "bad")
"""Of the others one changes nothing, and one is noise."""
_SHOWN = 3


def follow_drift(report: SelfTestReport, path: Path) -> Drift | None:
    """Add the report's figures to the history in the file, and say what it shows; None without any figure.

    Raises:
        ConfigurationError: the file is no history; it is not begun anew in silence.
    """
    figures = {
        f"{result.canary} {rule}": figure
        for result in report.canaries
        if result.canary in TRAINED
        for rule, figure in result.figures.items()
    }
    if not figures:
        return None
    before = _history(path, report)
    unmeasured = (None,) * before.n_looks
    series = {
        name: (*before.series.get(name, unmeasured), figures.get(name)) for name in sorted({*before.series, *figures})
    }
    history = before.model_copy(update={"n_looks": before.n_looks + 1, "series": series})
    drift = drift_of(history)
    write_atomically(path, history.model_copy(update={"highest": drift.e_value}).canonical())
    return drift


def drift_of(history: DriftHistory) -> Drift:
    """What the history shows. A figure that was not measured at a look bets nothing there."""
    bets = {name: e_values(figures, key=f"{history.base_model} {name}") for name, figures in history.series.items()}
    highest = max(history.highest, *capital(history, bets))
    most_moved = sorted(bets, key=lambda name: max(bets[name]), reverse=True)[:_SHOWN]
    return Drift(n_looks=history.n_looks, e_value=highest, threshold=THRESHOLD, most_moved=tuple(most_moved))


def capital(history: DriftHistory, bets: Mapping[str, Sequence[float]]) -> list[float]:
    """M at each look."""
    entries = {name: _entry(figures) for name, figures in history.series.items()}
    capital: dict[str, float] = {}
    found = []
    for look in range(history.n_looks):
        entering = [name for name, entry in entries.items() if entry == look]
        share = (math.fsum(capital.values()) if capital else 1.0) / max(1, len(capital) + len(entering))
        kept = len(capital) / max(1, len(capital) + len(entering))
        capital = {name: kept * c for name, c in capital.items()} | dict.fromkeys(entering, share)
        for name in capital:
            capital[name] *= bets[name][look] / (bets[name][look - 1] if look else 1.0)
        found.append(math.fsum(capital.values()) if capital else 1.0)
    return found


def _entry(figures: Sequence[float | None]) -> int:
    """The look at which a series first has a figure; one that has none never enters."""
    return next((look for look, figure in enumerate(figures) if figure is not None), len(figures))


def _history(path: Path, report: SelfTestReport) -> DriftHistory:
    fresh = DriftHistory(policy=report.policy, base_model=report.base_model, calibration=report.calibration, series={})
    try:
        kept = DriftHistory.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return fresh
    except ValidationError as error:
        raise ConfigurationError(
            f"{path} is no history of self-tests; repair or remove it: {error}", "cache_dir"
        ) from error
    return kept if kept.calibration == report.calibration else fresh
