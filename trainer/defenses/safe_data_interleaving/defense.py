"""Safe-data interleaving: rows of a safe pool, spread evenly through the customer's data.

Kaczér et al. 2025 (arXiv 2508.06249) §3: D_train = D_fine ∪ D_safe with |D_safe| = ratio·|D_fine|, 5 % in the paper,
chosen at random; Bianchi et al. 2024 (arXiv 2309.07875) find that a few per cent of safety examples suffice.
Interleaving+ takes the rows of the highest perplexity gap s_d, which `perplexity_gap.py` defines, and interleaving++
leaves out refusals before. K and ε of s_d are not published; ε is 0.001 here.

Each safe row is placed at a random position of its own stretch of the data order, so every stretch has its share.
Neutral: ratio 0, which a policy states by leaving the defense out. Evidence: the rows that came in, with
`perplexity_gap` their lowest gap, and with `drop_refusals` how many rows of the pool were left out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from policies.contract.defenses import SafeDataInterleaving
from policies.contract.training import DefenseEvidence
from policies.errors import DefenseError
from trainer.base_assets import shipped_asset
from trainer.data import TrainingRow
from trainer.defense import Defense, DefenseContext
from trainer.defenses.safe_data_interleaving.perplexity_gap import MADE_BY, read_scores, require_fit
from trainer.defenses.safe_data_interleaving.refusals import trains_on_refusal
from trainer.safe_pool import SafePool

SCORES_FOLDER = "safe_pool_scores"


class SafeDataInterleavingDefense(Defense):
    name = "safe_data_interleaving"

    def __init__(
        self, pool: SafePool, *, ratio: float, seed: int, drop_refusals: bool, gaps: Sequence[float] | None
    ) -> None:
        self._ratio = ratio
        self._pool = pool
        self._seed = seed
        self._drop_refusals = drop_refusals
        self._gaps = gaps
        self._candidates = [
            index for index, row in enumerate(pool.rows) if not (drop_refusals and trains_on_refusal(row))
        ]
        if gaps is not None:
            self._candidates.sort(key=lambda index: -gaps[index])
        self._chosen: list[int] = []
        self._n_customer = 0

    @classmethod
    def build(cls, settings: SafeDataInterleaving, context: DefenseContext) -> SafeDataInterleavingDefense:
        pool = SafePool.load(settings.pool, context.store)
        return cls(
            pool,
            ratio=settings.ratio,
            seed=context.seed,
            drop_refusals=settings.drop_refusals,
            gaps=_gaps(settings, context, pool) if settings.selection == "perplexity_gap" else None,
        )

    def prepare_dataset(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        wanted = max(1, round(self._ratio * len(rows)))
        self._require_enough(wanted, len(rows))
        generator = random.Random(self._seed)
        eligible = self._candidates if self._gaps is None else self._candidates[:wanted]
        chosen = generator.sample(eligible, wanted)
        self._chosen, self._n_customer = chosen, len(rows)
        following = self._spread(chosen, len(rows), generator)
        mixed: list[TrainingRow] = []
        for position, row in enumerate(rows):
            mixed += [row, *following.get(position, ())]
        return mixed

    def _spread(self, chosen: Sequence[int], n_rows: int, generator: random.Random) -> dict[int, list[TrainingRow]]:
        """Position of a customer's row → the safe rows behind it, one in each of as many equal stretches."""
        following = defaultdict[int, list[TrainingRow]](list)
        stretch = n_rows / len(chosen)
        for index, number in enumerate(chosen):
            position = min(int((index + generator.random()) * stretch), n_rows - 1)
            row = TrainingRow(self._pool.rows[number], f"safe pool line {number + 1}", is_safe=True)
            following[position].append(row)
        return following

    def _require_enough(self, wanted: int, n_rows: int) -> None:
        if wanted <= len(self._candidates):
            return
        dropped = f", {self._n_dropped} of them refusals that are left out" if self._drop_refusals else ""
        raise DefenseError(
            f"safe_data_interleaving needs {wanted} safe rows ({self._ratio:g} of {n_rows}), the pool "
            f"{self._pool.digest} has {len(self._pool.rows)}{dropped}; use a larger pool or a lower ratio"
        )

    @property
    def _n_dropped(self) -> int:
        return len(self._pool.rows) - len(self._candidates)

    def evidence(self) -> DefenseEvidence:
        n_interleaved = len(self._chosen)
        figures = {
            "interleaved_rows": float(n_interleaved),
            "customer_rows": float(self._n_customer),
            "safe_rows_per_customer_row": n_interleaved / self._n_customer if self._n_customer else 0.0,
        }
        if self._gaps is not None and self._chosen:
            figures["lowest_gap"] = min(self._gaps[index] for index in self._chosen)
        if self._drop_refusals:
            figures["dropped_refusals"] = float(self._n_dropped)
        which = "rows" if self._gaps is None else "rows of the highest perplexity gaps"
        return DefenseEvidence(
            name=self.name,
            acted=n_interleaved > 0,
            figures=figures,
            explanation=f"{n_interleaved} {which} of safe pool {self._pool.digest} were spread through the data",
        )


def _gaps(settings: SafeDataInterleaving, context: DefenseContext, pool: SafePool) -> list[float]:
    """The gaps of the pool's rows under the job's base model."""
    base = context.base
    if base is None:
        raise DefenseError("safe_data_interleaving with selection perplexity_gap needs to know its base model")
    if settings.scores == "builtin":
        content = shipped_asset(SCORES_FOLDER, base, suffix="json", made_by=MADE_BY)
    elif context.store is None:
        raise DefenseError(f"the scores {settings.scores} are in an artifact store, and none is configured here")
    else:
        content = context.store.read_bytes(settings.scores)
    scores = read_scores(content, name=f"scores {settings.scores}")
    require_fit(scores, pool, base)
    return [row.gap for row in scores.rows]
