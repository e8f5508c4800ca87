"""Settings of the probe that looks for harm in the customer's own domain."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from policies.contract.artifacts import Digest
from policies.contract.probe_record import MostAnswers, ProbeRecord


class OwnDomain(ProbeRecord):
    """How careless the answers are to the training file's own prompts, against the base's answers."""

    divides_into_looks: ClassVar[bool] = False
    reads_training_file: ClassVar[bool] = True

    probe: Literal["own_domain"] = "own_domain"
    prompts: Literal["training_file"] = "training_file"
    prompts_per_part: int = Field(32, ge=8, le=400)
    """How many prompts of each part of the file are asked; all parts are asked as many."""
    ranked_rows: int = Field(1024, ge=24, le=10_000)
    """Rows of the file, drawn by the adapter's digest, whose own answers are ranked by how careless they are."""
    max_new_tokens: int = Field(64, ge=16, le=2048)
    canaries: Literal["builtin"] | Digest = "builtin"
    """The pair of adapters that answers are held against: that of the base model, or a folder in the artifact store."""
    judged: bool = False
    """Let the suite's panel score the same answers as well."""

    @property
    def needs_judges(self) -> bool:
        return self.judged

    def setting_missing_for(self, metric: str) -> str | None:
        return "judged: true" if metric == "own_domain.careless_rate" and not self.judged else None

    def most_answers(self, metric: str) -> MostAnswers | None:
        """Of one part."""
        return MostAnswers(self.prompts_per_part)
