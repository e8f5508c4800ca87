"""Follows the figures of the trained canaries from self-test to self-test: the adapters stay, so the figures should.

Drift of judge, classifier, library or machine shows here long before a canary comes out wrong. The e-value is the mean
over all figures' e-processes, and its highest value counts: what has drifted once has.
"""

from __future__ import annotations

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
    write_atomically(path, history.canonical())
    return drift_of(history)


def drift_of(history: DriftHistory) -> Drift:
    """What the history shows. A figure that was not measured at a look bets nothing there."""
    bets = {name: e_values(figures, key=f"{history.base_model} {name}") for name, figures in history.series.items()}
    means = [sum(at_look) / len(bets) for at_look in zip(*bets.values(), strict=True)]
    most_moved = sorted(bets, key=lambda name: max(bets[name]), reverse=True)[:_SHOWN]
    return Drift(n_looks=history.n_looks, e_value=max(means), threshold=THRESHOLD, most_moved=tuple(most_moved))


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
