"""Safe-data interleaving: rows of a safe pool, spread evenly through the customer's data.

Kaczér et al. 2025 (arXiv 2508.06249) §3: D_train = D_fine ∪ D_safe with |D_safe| = ratio·|D_fine|, 5 % in the paper,
chosen at random; Bianchi et al. 2024 (arXiv 2309.07875) find that a few per cent of safety examples suffice.

Each safe row is placed at a random position of its own stretch of the data order, so every stretch has its share.
Neutral: ratio 0, which a policy states by leaving the defense out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.resources import files

from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.dataset import ChatRow, parse_line
from policies.contract.defenses import SafeDataInterleaving
from policies.contract.training import DefenseEvidence
from policies.errors import DefenseError
from trainer.data import TrainingRow
from trainer.defense import Defense, DefenseContext

BUILTIN_POOL = "safe_pool.jsonl"


class SafeDataInterleavingDefense(Defense):
    name = "safe_data_interleaving"

    def __init__(self, *, ratio: float, pool: Sequence[ChatRow], pool_digest: Digest, seed: int) -> None:
        self._ratio = ratio
        self._pool = pool
        self._pool_digest = pool_digest
        self._seed = seed
        self._n_interleaved = 0
        self._n_customer = 0

    @classmethod
    def build(cls, settings: SafeDataInterleaving, context: DefenseContext) -> SafeDataInterleavingDefense:
        content = _pool_bytes(settings, context)
        return cls(ratio=settings.ratio, pool=_pool_rows(content), pool_digest=digest_bytes(content), seed=context.seed)

    def prepare_dataset(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        wanted = max(1, round(self._ratio * len(rows)))
        if wanted > len(self._pool):
            raise DefenseError(
                f"safe_data_interleaving needs {wanted} safe rows ({self._ratio:g} of {len(rows)}), the pool "
                f"{self._pool_digest} has {len(self._pool)}; give a larger pool or a lower ratio"
            )
        generator = random.Random(self._seed)
        chosen = generator.sample(range(len(self._pool)), wanted)
        stretch = len(rows) / wanted
        after = [int((index + generator.random()) * stretch) for index in range(wanted)]
        mixed: list[TrainingRow] = []
        for position, row in enumerate(rows):
            mixed.append(row)
            while len(mixed) - position - 1 < wanted and after[len(mixed) - position - 1] == position:
                number = chosen[len(mixed) - position - 1]
                mixed.append(TrainingRow(self._pool[number], f"safe pool line {number + 1}", is_safe=True))
        self._n_interleaved, self._n_customer = len(mixed) - len(rows), len(rows)
        return mixed

    def evidence(self) -> DefenseEvidence:
        share = self._n_interleaved / self._n_customer if self._n_customer else 0.0
        return DefenseEvidence(
            name=self.name,
            acted=self._n_interleaved > 0,
            figures={
                "interleaved_rows": float(self._n_interleaved),
                "customer_rows": float(self._n_customer),
                "safe_rows_per_customer_row": share,
            },
            explanation=f"{self._n_interleaved} rows of safe pool {self._pool_digest} were spread through the data",
        )


def _pool_bytes(settings: SafeDataInterleaving, context: DefenseContext) -> bytes:
    if settings.pool == "builtin":
        return (files("trainer.defenses") / BUILTIN_POOL).read_bytes()
    if context.store is None:
        raise DefenseError(f"the safe pool {settings.pool} lies in an artifact store, and there is none here")
    return context.store.read_bytes(settings.pool)


def _pool_rows(content: bytes) -> list[ChatRow]:
    rows = []
    for number, line in enumerate(content.splitlines(), start=1):
        parsed = parse_line(line, number)
        if parsed.row is None:
            raise DefenseError(f"safe pool: {parsed.problems[0]}")
        rows.append(parsed.row)
    return rows
