"""Makes a model score completion tokens only, where TRL's fused output layer would score prompt and padding as well.

TRL asks a model for `FusedCausalLMOutput` (`model(..., labels=…, fused_lm_head=True)`). With Triton its kernel skips
positions without a label; without Triton it does not. There this forward stands in for it.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from policies.rendering.encoding import IGNORED
from trainer.losses.label_log_probs import score_tokens


def install_scoring_head(model: PreTrainedModel, *, mean_logits: bool = False) -> bool:
    """Patch `model`, which TRL patched before; False where TRL's own head stays (a GPU, or transformed logits).

    Args:
        mean_logits: also give the mean over the vocabulary, which DPO logs.
    """
    config = model.config.get_text_config()
    transforms = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier", "lm_head_multiplier")
    if model.device.type != "cpu" or any(getattr(config, name, None) is not None for name in transforms):
        return False
    fused_forward = model.forward

    # Any: the model's own arguments and output
    def forward(self: PreTrainedModel, *arguments: Any, fused_lm_head: bool = False, **named: Any) -> Any:
        if not fused_lm_head or "labels" not in named:
            return fused_forward(*arguments, fused_lm_head=fused_lm_head, **named)
        labels = named.pop("labels")[:, 1:]
        hidden = self.base_model(*arguments, **named).last_hidden_state[:, :-1]
        mask = labels != IGNORED
        head = self.get_output_embeddings()
        scores = score_tokens(hidden[mask], head.weight, head.bias, labels[mask])
        log_probs, entropy, is_top1 = (each.new_zeros(mask.shape).masked_scatter(mask, each) for each in scores)
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=entropy,
            log_sum_sq_probs=None,
            mean_logits=_mean_logits(hidden, head.weight, head.bias) if mean_logits else None,
            is_top1=is_top1.to(torch.bool),
            label_mask=mask,
            aux_loss=None,
        )

    model.forward = types.MethodType(forward, model)
    return True


@torch.no_grad()
def _mean_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """float32 [B, S]: the mean of a product is the product with the mean."""
    mean = hidden.float() @ weight.float().mean(0)
    return mean if bias is None else mean + bias.float().mean()
