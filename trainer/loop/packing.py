"""Rows of a batch in one sequence, one after another and without padding.

The same rows make up every step as without packing, in the order that defenses gave them, so losses are the same up to
rounding. Rows are kept apart by position ids that begin anew; a model that does not heed them is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from policies.errors import ConfigurationError

TOLERANCE = 0.02
"""Share of the largest logit by which rounding may part packed from separate rows."""
LENGTHS = (7, 11)


@torch.no_grad()
def require_rows_apart(model: PreTrainedModel) -> None:
    """Raises unless two packed rows give the logits that each gives alone.

    Raises:
        ConfigurationError: the model lets packed rows see each other.
    """
    rows = [_row(model, length) for length in LENGTHS]
    positions = torch.cat([torch.arange(length, device=model.device) for length in LENGTHS])[None]
    packed = model(input_ids=torch.cat(rows, 1), position_ids=positions, use_cache=False).logits
    apart = torch.cat([model(input_ids=row, use_cache=False).logits for row in rows], 1)
    if (packed - apart).abs().max() > TOLERANCE * apart.abs().max():
        raise ConfigurationError(
            f"{model.config.model_type} models let packed rows see each other; turn packing off", "packing"
        )


def _row(model: PreTrainedModel, length: int) -> Tensor:
    """[1, length]: token ids that differ between rows."""
    vocabulary = model.config.get_text_config().vocab_size
    return (torch.arange(length, device=model.device) * 7 + length).remainder(vocabulary)[None]
