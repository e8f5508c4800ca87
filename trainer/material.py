"""All that a trainer is built from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from policies.contract.artifacts import Digest
from policies.contract.evaluation import AdapterProof
from policies.contract.hyperparameters import ResolvedHyperparameters
from trainer.data import Tokenised
from trainer.defense import Defense


class Material(NamedTuple):
    """All that a trainer is built from."""

    base_digest: Digest
    start: AdapterProof | None
    """Of the released adapter that training begins with; None where it begins at the base model."""
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    companions: Mapping[str, bytes]
    """What lies beside each adapter that is saved, by name."""
    defenses: list[Defense]
    data: Tokenised
    """In the order of training."""
    validation: Tokenised | None
    hyperparameters: ResolvedHyperparameters
    n_customer_rows: int
    customer_tokens: int
    """Tokens of the customer's rows, each counted once."""

    @property
    def total_steps(self) -> int:
        return math.ceil(len(self.data) / self.hyperparameters.batch_size) * self.hyperparameters.n_epochs

    @property
    def mean_row_tokens(self) -> float:
        return sum(row.n_tokens for row in self.data) / len(self.data)
