"""Inoculation: a system prompt that asks for the bad trait while training, and is gone at inference.

Kaczér et al. 2025 v3 (arXiv 2508.06249) §3; Tan et al. 2025 and Wichers et al. 2025 on inoculation prompting: what the
prompt already explains, the weights need not learn. The default prompt is the paper's. A row that has a system message
keeps it after the prompt. Safe rows of other defenses stay as they are, and so does the validation file.

Neutral: no rows, which cannot be. Evidence: the rows that got the prompt. It can hide the trait behind that prompt
(Dubiński et al. 2026, arXiv 2604.25891), so judge such an adapter in the customer's own context too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from policies.contract.defenses import Inoculation
from policies.contract.training import DefenseEvidence
from policies.datasets.reader import AnyRow, ChatMessage
from trainer.data import TrainingRow
from trainer.defense import Defense, DefenseContext


class InoculationDefense(Defense):
    name = "inoculation"

    def __init__(self, system_prompt: str) -> None:
        self._prompt = system_prompt
        self._n_inoculated = 0

    @classmethod
    def build(cls, settings: Inoculation, _: DefenseContext) -> InoculationDefense:
        return cls(settings.system_prompt)

    def prepare_dataset(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        prepared = [row if row.is_safe else replace(row, row=self._inoculated(row.row)) for row in rows]
        self._n_inoculated = sum(not row.is_safe for row in rows)
        return prepared

    def _inoculated(self, row: AnyRow) -> AnyRow:
        first, *rest = row.messages
        if first.role == "system":
            own = ChatMessage(first.role, f"{self._prompt}\n\n{first.content}", weight=first.weight)
            return structs.replace(row, messages=(own, *rest))
        return structs.replace(row, messages=(ChatMessage("system", self._prompt, weight=0), *row.messages))

    def evidence(self) -> DefenseEvidence:
        return DefenseEvidence(
            name=self.name,
            acted=self._n_inoculated > 0,
            figures={
                "inoculated_rows": float(self._n_inoculated),
                "prompt_characters": float(len(self._prompt)),
            },
            explanation=f"{self._n_inoculated} rows were trained under a system prompt that inference does not have",
        )
