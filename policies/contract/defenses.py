"""Settings of the in-training defenses, as policies write them and trainers read them.

`name` is the discriminator: `- name: kl_penalty` with the fields of `KlPenalty`. The mechanism of each lives in
`trainer/defenses/<name>.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from policies.contract.artifacts import Digest, Record


class KlPenalty(Record):
    """KL divergence between the model in training and the same model with its adapter off (Kaczér et al. 2025 §3)."""

    name: Literal["kl_penalty"] = "kl_penalty"
    coefficient: float = Field(0.1, gt=0, le=100)
    """λ in L = L_CE + λ·KL; 0.1 in the paper."""
    direction: Literal["reverse", "forward"] = "reverse"
    """`reverse` is KL(trained ‖ base), as in the papers' code; `forward` is KL(base ‖ trained)."""
    tokens: Literal["all", "completion"] = "all"
    """Average over all non-padding tokens, or over completion tokens only."""


class SafeDataInterleaving(Record):
    """Mix rows of a safe pool into the training data (Kaczér et al. 2025 §3; Bianchi et al. 2024)."""

    name: Literal["safe_data_interleaving"] = "safe_data_interleaving"
    ratio: float = Field(0.05, gt=0, le=0.5)
    """Safe rows per row of the customer's data; 0.05 in the paper."""
    pool: Literal["builtin"] | Digest = "builtin"
    """The shipped pool, or the digest of a chat JSONL artifact."""


DefenseSettings = Annotated[KlPenalty | SafeDataInterleaving, Field(discriminator="name")]


def strength(settings: DefenseSettings) -> float:
    """How strong a defense is set; a tenant may raise it, never lower it."""
    return settings.coefficient if isinstance(settings, KlPenalty) else settings.ratio
