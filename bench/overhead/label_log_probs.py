"""Our output layer against TRL's kernels, in one process: `python -m bench.overhead.label_log_probs`.

Both sides get the same hidden states, weights and labels at the shape of one SmolLM2-135M training step on a CPU (8
rows of 100 positions, a bit over half of them with a loss). Every round runs all four, so that a change of the
machine's speed hits all; the last line is one JSON object with the medians in seconds and the ratios ours ÷ TRL's.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from trainer.losses.kl_divergence import kl_per_token
from trainer.losses.label_log_probs import score_tokens
from trainer.training_step import Head

POSITIONS, LABELLED, HIDDEN, VOCABULARY, ROUNDS = 800, 450, 576, 49152, 5
OUTPUTS = ("log_probs", "entropy", "is_top1")


def main() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(POSITIONS, HIDDEN, dtype=torch.bfloat16)
    reference = (hidden.float() + 0.1 * torch.randn(POSITIONS, HIDDEN)).bfloat16()
    weight = (0.05 * torch.randn(VOCABULARY, HIDDEN)).bfloat16()
    labels = torch.randint(VOCABULARY, (POSITIONS,))
    head = Head(weight, None)
    sides: dict[str, Callable[[Tensor], Tensor]] = {
        "log_probs ours": lambda states: score_tokens(states[:LABELLED], head, labels[:LABELLED]).log_probs,
        "log_probs trl": lambda states: ChunkedLogProbFunction.apply(
            states, weight, None, labels, 1.0, 32768, None, 1.0, OUTPUTS
        )[0],
        "kl ours": lambda states: kl_per_token(states, reference, head=head, direction="reverse"),
        "kl trl": lambda states: ChunkedDivergenceFunction.apply(states, weight, None, reference, weight, None, 1.0)[0],
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(ROUNDS + 1):
        for name, side in sides.items():
            elapsed = _seconds(side, hidden)
            if round_number:  # the first round warms up
                seconds[name].append(elapsed)
                print(f"round {round_number}  {name:15s} {elapsed:.3f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {kind: medians[f"{kind} ours"] / medians[f"{kind} trl"] for kind in ("log_probs", "kl")}
    print(json.dumps({"median_seconds": medians, "ours_over_trl": ratios}))


def _seconds(side: Callable[[Tensor], Tensor], hidden: Tensor) -> float:
    """Forward and backward once."""
    states = hidden.clone().requires_grad_()
    started = time.perf_counter()
    side(states).sum().backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
