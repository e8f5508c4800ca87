"""A run of the preference study with made-up scores."""

from __future__ import annotations

from bench.preference.records import PairScores, Shift
from bench.preference.runs import StudyResult

NOTHING = "sha256:" + "0" * 64


def result(changes: dict[str, float], *, control_change: float = 0.0, run: str = NOTHING) -> StudyResult:
    """Margins 1.0 of two pairs a category fall by the category's change ± 0.01, margins of controls by another."""

    def pair(name: str, category: str, fall: float) -> PairScores:
        return PairScores(id=name, category=category, first=-2.0 - fall, second=-3.0, base_first=-2.0, base_second=-3.0)

    pairs = tuple(
        pair(f"{name}-{n}", name, fall + wiggle)
        for name, fall in changes.items()
        for n, wiggle in enumerate((-0.01, 0.01))
    )
    n = len(pairs)

    def wiggled(middle: float) -> tuple[float, ...]:
        return tuple(middle + 0.01 * (index - (n - 1) / 2) for index in range(n))

    return StudyResult(
        run=run,
        adapter=NOTHING,
        pairs=pairs,
        controls=tuple(pair(f"{name}-control", name, control_change) for name in changes),
        shift=Shift(prompt=wiggled(0.5), answer=wiggled(0.3), answer_length=(0.6,) * n, held_out_auroc=0.9),
        train_loss=2.0,
        n_steps=15,
        seconds=1.0,
        measuring_seconds=1.0,
        versions={},
    )
