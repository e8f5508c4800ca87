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

from evaluator.models.logit_shape import TOLERANCE
from policies.errors import ConfigurationError
from policies.rendering.encoding import IGNORED
from trainer.lora import proven_head
from trainer.losses.label_log_probs import score_tokens
from trainer.training_step import Head


def install_scoring_head(model: PreTrainedModel, *, mean_logits: bool = False) -> bool:
    """Patch `model`, which TRL patched before; False where TRL's own head stays (a GPU, or logits that ours lacks).

    Args:
        mean_logits: also give the mean over the vocabulary, which DPO logs.
    """
    proven = proven_head(model) if model.device.type == "cpu" else None
    if proven is None or (mean_logits and proven.shape.cap is not None):
        return False
    shape = proven.shape
    fused_forward = model.forward

    # Any: the model's own arguments and output
    def forward(self: PreTrainedModel, *arguments: Any, fused_lm_head: bool = False, **named: Any) -> Any:
        if not fused_lm_head or "labels" not in named:
            return fused_forward(*arguments, fused_lm_head=fused_lm_head, **named)
        labels = named.pop("labels")[:, 1:]
        hidden = self.base_model(*arguments, **named).last_hidden_state[:, :-1]
        mask = labels != IGNORED
        layer = self.get_output_embeddings()
        head = Head(layer.weight, layer.bias, shape)
        scores = score_tokens(hidden[mask], head, labels[mask])
        log_probs, entropy, is_top1 = (each.new_zeros(mask.shape).masked_scatter(mask, each) for each in scores)
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=entropy,
            log_sum_sq_probs=None,
            mean_logits=_mean_logits(hidden, head) if mean_logits else None,
            is_top1=is_top1.to(torch.bool),
            label_mask=mask,
            aux_loss=None,
        )

    model.forward = types.MethodType(forward, model)
    return True


@torch.no_grad()
def _mean_logits(hidden: Tensor, head: Head) -> Tensor:
    """float32 [B, S] of logits that are not capped: the mean of a product is the product with the mean."""
    mean = hidden.float() @ head.weight.float().mean(0)
    return head.shape.logits(mean if head.bias is None else mean + head.bias.float().mean())


@torch.no_grad()
def require_own_scores(model: PreTrainedModel) -> None:
    """Raises unless the head that trains, ours or TRL's, gives the model's own log-probabilities.

    Raises:
        ConfigurationError: the model's logits are not what either head makes of its configuration.
    """
    if model.base_model is model:
        raise ConfigurationError(
            f"{type(model).__name__}: its body can't be run apart from its output layer; use another base model", "uri"
        )
    ids = torch.arange(min(16, model.config.get_text_config().vocab_size), device=model.device)[None]
    was_training = model.training
    model.eval()
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    scored: Tensor = model(input_ids=ids, labels=ids, fused_lm_head=True, use_cache=False).log_probs
    model.train(was_training)
    own = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    largest = float(logits.nan_to_num().abs().max())  # what is not finite ends the run, and says so
    if not torch.allclose(scored.float(), own, rtol=0, atol=TOLERANCE * largest, equal_nan=True):
        raise ConfigurationError(
            f"{model.config.model_type} models change their logits in ways of their own, so their loss would be wrong; "
            "use another base model",
            "uri",
        )
