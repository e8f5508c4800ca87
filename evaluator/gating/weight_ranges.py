"""Says where figures of an adapter's weights lie outside the range of a calibration's benign adapters.

It is told and decides nothing: of some forty figures a few of a harmless adapter lie outside the range of twenty
others, two of 21 for each figure if all are drawn alike.
"""

from __future__ import annotations

from collections.abc import Mapping

_TOLD = 5
"""Figures that are named."""


def weights_told(ranges: Mapping[str, tuple[float, float]], found: Mapping[str, float]) -> str:
    """In a sentence; empty where there is nothing to tell."""
    if not ranges:
        return ""
    if not found:
        return "audit: the figures of the adapter's weights, whose benign ranges are known, were not measured"
    outside = [name for name, (low, high) in ranges.items() if not low <= found.get(name, float("nan")) <= high]
    if not outside:
        return ""
    named = ", ".join(_told(name, ranges[name], found.get(name)) for name in outside[:_TOLD])
    more = f" and {len(outside) - _TOLD} more" if len(outside) > _TOLD else ""
    return (
        f"audit: {len(outside)} of {len(ranges)} figures of the adapter's weights are outside the range of benign "
        f"adapters: {named}{more}"
    )


def _told(name: str, known: tuple[float, float], figure: float | None) -> str:
    low, high = known
    return f"{name} {'not measured' if figure is None else f'{figure:.4g}'} ({low:.4g} to {high:.4g})"
