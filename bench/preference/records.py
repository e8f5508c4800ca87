"""What a run of `bench.preference` found out about an adapter.

Apart from the run itself: a module that runs as `__main__` would have these classes twice.
"""

from __future__ import annotations

from pydantic import Field

from policies.contract.artifacts import Record


class PairScores(Record):
    """Log-likelihood of a pair's two answers, nats per token."""

    id: str
    category: str
    first: float
    second: float
    base_first: float
    base_second: float


class Shift(Record):
    """Change of the residual stream at a middle layer, one value a pair, in units of the base's median norm."""

    prompt: tuple[float, ...]
    """Along the misaligned-minus-aligned direction, at the last token of the prompt."""
    answer: tuple[float, ...]
    """Along the direction, over the tokens of the aligned answer."""
    answer_length: tuple[float, ...]
    """Length of that whole change."""
    held_out_auroc: float = Field(ge=0, le=1)
    """How well the direction tells the base's own answers apart in categories that it was not made from."""
