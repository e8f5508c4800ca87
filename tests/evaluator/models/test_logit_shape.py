"""What a configuration says of scales and caps, under the names that transformers has for them."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from evaluator.models.logit_shape import LogitShape

SHAPES: dict[str, tuple[dict[str, Any], LogitShape]] = {  # Any: fields of a model's configuration
    "llama": ({}, LogitShape()),
    "cohere": ({"logit_scale": 0.5}, LogitShape(scale=0.5)),
    "granite": ({"logits_scaling": 4.0}, LogitShape(scale=0.25)),
    "falcon_h1": ({"lm_head_multiplier": 0.5}, LogitShape(scale=0.5)),
    "gemma2": ({"final_logit_softcapping": 20.0}, LogitShape(cap=20.0)),
    "recurrent_gemma": ({"logits_soft_cap": 20.0}, LogitShape(cap=20.0)),
    "xlstm": ({"output_logit_soft_cap": 30.0}, LogitShape(cap=30.0)),
    "mpt": ({"logit_scale": "inv_sqrt_d_model"}, LogitShape()),
}


@pytest.mark.parametrize("model_type", SHAPES)
def test_the_scale_and_cap_of_a_configuration(model_type: str) -> None:
    settings, shape = SHAPES[model_type]
    assert LogitShape.of(AutoConfig.for_model(model_type, **settings)) == shape


def test_no_cap_is_none() -> None:
    assert LogitShape.of(AutoConfig.for_model("gemma2", final_logit_softcapping=None)).cap is None
