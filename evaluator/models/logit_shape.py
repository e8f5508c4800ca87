"""What models do to the numbers of their output layer before they are logits: most nothing, some scale or cap them.

With u = W·h + b of the output layer, the logits are z = s·u, or z = c·tanh(s·u ÷ c) where they are capped at ±c. Cohere
and Granite scale, Gemma 2 and 4 cap. What a configuration says is believed only where the model's own logits prove it:
those of a few tokens, to `TOLERANCE`. So HyperCLOVA X, which multiplies by what Granite divides by, is told apart, and
so is a scale or cap of a name that is not below. One thing is not: a cap of another name so high (four times the
largest of these logits) that it does nothing to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedConfig

TOLERANCE = 0.02
"""Share of the largest logit by which rounding may part a model's own logits from those of its parts."""
MULTIPLIERS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
"""Names of s in configurations of transformers (Cohere, Muse, Falcon-H1)."""
DIVISOR = "logits_scaling"
"""Name of 1 ÷ s (Granite)."""

CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names of c (Gemma, RecurrentGemma, xLSTM)."""


class LogitShape(NamedTuple):
    """s and c of a model."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: PreTrainedConfig) -> LogitShape:
        """As the configuration says it."""
        text = config.get_text_config()
        divisor = next(_numbers(text, (DIVISOR,)), 0.0)
        scale = next(_numbers(text, MULTIPLIERS), 1 / divisor if divisor else 1.0)
        return cls(scale, next((cap for cap in _numbers(text, CAPS) if cap), None))

    @property
    def is_plain(self) -> bool:
        """Whether the numbers of the output layer are the logits."""
        return self == LogitShape()

    def logits(self, raw: Tensor) -> Tensor:
        """z of u; any shape, float32."""
        scaled = raw if self.scale == 1 else raw * self.scale
        return scaled if self.cap is None else (scaled / self.cap).tanh() * self.cap

    def slope(self, logits: Tensor) -> Tensor | float:
        """∂z/∂u, where z is `logits`."""
        return self.scale if self.cap is None else (1 - (logits / self.cap).square()) * self.scale

    def difference(self, raw: Tensor, raw_delta: Tensor) -> Tensor:
        """z(u + δ) − z(u), rounded relative to δ.

        tanh(x + y) − tanh(x) = tanh(y)·(1 − tanh(x)·tanh(x + y))
        """
        if self.cap is None:
            return raw_delta if self.scale == 1 else raw_delta * self.scale
        x, y = raw * (self.scale / self.cap), raw_delta * (self.scale / self.cap)
        return y.tanh() * (1 - x.tanh() * (x + y).tanh()) * self.cap


def _numbers(config: PreTrainedConfig, names: Iterable[str]) -> Iterator[float]:
    """Those of the fields that are numbers; MPT's scale may be a word, which its model passes over."""
    values = (getattr(config, name, None) for name in names)
    return (float(value) for value in values if isinstance(value, int | float))
