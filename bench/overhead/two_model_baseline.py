"""What people do today for a KL penalty: a second frozen model, whole logits of both, `F.kl_div`.

The penalty follows the published code (KL of the trained to the frozen model over all tokens that are not padding);
the policy's logits come from a forward of their own, as TRL's trainer keeps none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import SFTTrainer

COEFFICIENT = 0.1


class TwoModelTrainer(SFTTrainer):
    """SFTTrainer with the penalty in `compute_loss`."""

    def __init__(self, *, frozen: PreTrainedModel, **arguments: Any) -> None:  # Any: SFTTrainer's own arguments
        super().__init__(**arguments)
        self._frozen = frozen.eval().requires_grad_(False)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:  # Any: TRL's signature
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            reference = self._frozen(**batch).logits.float().log_softmax(-1)
        policy = model(**batch).logits.float().log_softmax(-1)
        per_token: Tensor = kl_div(reference, policy, reduction="none", log_target=True).sum(-1)
        mask = batch["attention_mask"]
        return loss + COEFFICIENT * (per_token * mask).sum() / mask.sum()
