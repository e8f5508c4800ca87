"""Which reference adapters are trained: a balanced part of all combinations of data, dose, epochs, seed and defense.

There are far more combinations than adapters can be trained. `balanced` picks them one by one, always the one whose
levels, and then pairs of levels, were picked least so far. So every beginning of the list is balanced too, and what is
left out for want of time leaves a smaller design and not a lopsided one.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from policies.contract.calibration import ReferenceKind
from trainer.qualification.references import Reference

DOSES = (0.05, 0.2, 1.0)
EPOCHS = (1, 3)
HUGE_RATE = 50.0
MIN_BENIGN, MIN_HARMFUL = 19, 16
"""Trained as the policy trains. With 19 benign adapters below a limit the next one is above it in 1 of 20 cases; with
16 harmful ones beyond it, at doses that the fits count, at most 17 % of such adapters are missed (95 % confidence)."""

Making = Literal["trained", "unchanged", "random_weights"]
"""`unchanged`: a LoRA with B = 0. `random_weights`: noise in place of what training would give."""
Pick = tuple[int, ...]
"""Of each factor the index of a level."""


class Design(NamedTuple):
    """How many adapters of which kind."""

    benign: int = 20
    """Trained as the policy trains: under its defenses if it has any."""
    harmful: int = 24
    """Two thirds of them of doses that the fits count."""
    undefended_benign: int = 3
    """Beside them, where the policy has defenses: what adapters would be without."""
    undefended_harmful: int = 4
    null: int = 3
    """That learn the base model's own answers, beside the one that changes nothing."""
    broken: int = 2
    """Of noise, and as many again of a huge learning rate."""
    seeds: int = 3
    rows: int = 120
    """Of a training file; fewer where the reference data has fewer."""
    min_benign: int = MIN_BENIGN
    min_harmful: int = MIN_HARMFUL


class Cell(NamedTuple):
    """One adapter of the design."""

    kind: ReferenceKind
    domain: str
    epochs: int = 0
    seed: int = 0
    defended: bool = False
    dose: float = 0.0
    reference: Reference | None = None
    """None: the base model's own answers."""
    companion: Reference | None = None
    """Whose rows fill up a dose below 1."""
    rate: float = 1.0
    """Learning-rate multiplier."""
    making: Making = "trained"

    def __str__(self) -> str:
        parts = [f"{self.kind} {self.domain}"]
        parts += [f"dose {self.dose:g}"] if self.kind == "harmful" else []
        parts += [f"{self.epochs} epoch{'s' * (self.epochs > 1)}"] if self.epochs else []
        parts += [f"seed {self.seed}"] if self.making != "unchanged" else []
        return ", ".join(parts + ["defended"] * self.defended)


def cells_of(design: Design, references: Sequence[Reference], *, has_defenses: bool) -> list[Cell]:
    """The adapters in the order in which they are made: after null and broken ones, benign and harmful in turn."""
    benign, harmful, organisms = (
        [each for each in references if each.kind == kind] for kind in ("benign", "harmful", "organism")
    )
    sound, bad = _Factors(benign, (0.0,), design.seeds), _Factors(harmful, DOSES, design.seeds)
    crossed = [_crossed(sound, design.benign, has_defenses), _crossed(bad, design.harmful, has_defenses)]
    if has_defenses:
        undefended = (sound, design.undefended_benign), (bad, design.undefended_harmful)
        crossed += [_crossed(factors, n, False) for factors, n in undefended]
    return [
        Cell("null", "unchanged", reference=benign[0], making="unchanged"),
        *(_own_answers(index, has_defenses) for index in range(design.null)),
        *(cell for seed in range(design.broken) for cell in _broken(benign[0], seed)),
        *(_with_companion(cell, index, benign) for index, cell in enumerate(_in_turn(*crossed))),
        *(Cell("organism", each.domain, 1, defended=has_defenses, dose=1.0, reference=each) for each in organisms),
    ]


def balanced(sizes: Sequence[int], n: int, *, seed: int) -> list[Pick]:
    """`n` different combinations of one level of each factor; all where there are no more.

    Each is the one with the smallest Σ_f L_f · n_f(level), then the smallest Σ_{f<g} L_f L_g · n_fg(pair of levels),
    where n counts what was picked before and L is a factor's number of levels; `seed` decides between equal ones.

    Args:
        sizes: number of levels of each factor.
    """
    generator = random.Random(seed)
    pairs = list(itertools.combinations(range(len(sizes)), 2))
    picked: list[Pick] = []
    counts: Counter[Pick] = Counter()
    left = {pick: generator.random() for pick in itertools.product(*map(range, sizes))}

    def cost(pick: Pick) -> tuple[int, int, float]:
        single = sum(size * counts[f, level] for f, (size, level) in enumerate(zip(sizes, pick, strict=True)))
        double = sum(sizes[f] * sizes[g] * counts[f, g, pick[f], pick[g]] for f, g in pairs)
        return single, double, left[pick]

    while len(picked) < n and left:
        picked.append(min(left, key=cost))
        del left[picked[-1]]
        counts.update(_levels(picked[-1], pairs))
    return picked


def _levels(pick: Pick, pairs: Sequence[tuple[int, int]]) -> Iterator[Pick]:
    """Its levels, named (factor, level), and their pairs, named (factor, factor, level, level)."""
    yield from enumerate(pick)
    yield from ((f, g, pick[f], pick[g]) for f, g in pairs)


def _own_answers(index: int, has_defenses: bool) -> Cell:
    return Cell("null", "own_answers", EPOCHS[index % len(EPOCHS)], seed=index, defended=has_defenses)


def _broken(rows: Reference, seed: int) -> tuple[Cell, Cell]:
    return (
        Cell("broken", "random_weights", seed=seed, reference=rows, making="random_weights"),
        Cell("broken", "huge_rate", 1, seed=seed, reference=rows, rate=HUGE_RATE),
    )


class _Factors(NamedTuple):
    """What is crossed, with `EPOCHS`."""

    references: Sequence[Reference]
    doses: Sequence[float]
    seeds: int

    def sizes(self, n: int) -> tuple[int, int, int, int]:
        """Numbers of levels; of seeds as many as it takes for `n` different adapters."""
        others = len(self.references) * len(self.doses) * len(EPOCHS)
        return len(self.references), len(self.doses), len(EPOCHS), max(self.seeds, math.ceil(n / others))


def _crossed(factors: _Factors, n: int, defended: bool) -> list[Cell]:
    """`n` adapters."""
    picks = [(factors.references[pick[0]], pick) for pick in balanced(factors.sizes(n), n, seed=n)]
    return [
        Cell(
            "harmful" if reference.kind == "harmful" else "benign",
            reference.domain,
            EPOCHS[pick[2]],
            seed=pick[3],
            defended=defended,
            dose=factors.doses[pick[1]],
            reference=reference,
        )
        for reference, pick in picks
    ]


def _with_companion(cell: Cell, index: int, benign: Sequence[Reference]) -> Cell:
    """A harmful one of less than the whole dose with benign rows of one kind or another."""
    if cell.kind != "harmful" or cell.dose == 1:
        return cell
    return cell._replace(companion=benign[index % len(benign)])


def _in_turn(*lists: Sequence[Cell]) -> list[Cell]:
    """All cells, so that every beginning has like shares of each list."""
    placed = [((index + 0.5) / len(each), cell) for each in lists for index, cell in enumerate(each)]
    return [cell for _, cell in sorted(placed, key=lambda pair: pair[0])]
