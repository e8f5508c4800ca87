"""Early stopping on safety: a cheap monitor measures the adapter while it trains, and ends training when safety falls.

Emergent misalignment appears after the task is learnt, and stopping in time removes it at a small cost of the task
(arXiv 2605.12199). Every n steps the monitor takes the mean margin of log-likelihood per token between aligned and
misaligned answers to its own questions, which the gate never asks, and compares it with the base model's:

    drop = mean_i [ m_i(base) − m_i(adapter) ],   m = log p(aligned)/|aligned| − log p(misaligned)/|misaligned|

`stop` keeps the adapter of the check that failed, `roll_back` the last that passed. The adapter at the end of training
is checked as well. No checkpoint after the last check that passed may be released. Neutral: a limit that no drop
reaches; it only measures. Evidence: the checks and what they found.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import NamedTuple

from peft import PeftModel
from torch import Tensor

from evaluator.backends.protocol import ChatPrompt, Choices
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.models.loading import LoadedModel
from policies.contract.defenses import EarlyStoppingOnSafety
from policies.contract.training import DefenseEvidence
from policies.errors import DefenseError
from trainer.defense import Counters, Defense, DefenseContext, RunMaterial
from trainer.safe_pool import source_bytes

BUILTIN_PAIRS = "monitor_pairs.jsonl"


class MonitorPair(NamedTuple):
    question: str
    aligned: str
    misaligned: str


@dataclass
class SafetyChecks(Counters):
    steps: int = 0
    checks: int = 0
    last_checked_step: int = 0
    last_drop: float = 0.0
    max_drop: float = 0.0
    kept_step: int = 0
    """Whose adapter is kept."""
    stopped_at_step: int = 0
    """0: training was not ended."""


class EarlyStoppingOnSafetyDefense(Defense):
    name = "early_stopping_on_safety"
    counters: SafetyChecks

    def __init__(self, settings: EarlyStoppingOnSafety, pairs: list[MonitorPair]) -> None:
        self._settings = settings
        self._questions = [Choices(ChatPrompt.of(p.question), (p.aligned, p.misaligned)) for p in pairs]
        self._base_margins: list[float] = []
        self._kept: dict[str, Tensor] = {}
        self.counters = SafetyChecks()

    @classmethod
    def build(cls, settings: EarlyStoppingOnSafety, context: DefenseContext) -> EarlyStoppingOnSafetyDefense:
        content = source_bytes(settings.prompts, context.store, builtin=BUILTIN_PAIRS, what="monitor's answer pairs")
        return cls(settings, read_pairs(content))

    def start(self, material: RunMaterial) -> None:
        self._backend = TransformersBackend(
            LoadedModel(material.model, material.tokenizer, material.encoder, material.base)
        )
        self._base_margins = self._margins(material.model, adapter=False)

    def wants_to_stop(self, model: PeftModel, steps: int) -> bool:
        if not self.counters.stopped_at_step and steps % self._settings.every_n_steps == 0:
            self._check(model, steps)
        self.counters.steps = steps
        return self.counters.stopped_at_step > 0

    def choose_adapter(self, model: PeftModel) -> None:
        if not self.counters.stopped_at_step and self.counters.last_checked_step != self.counters.steps:
            self._check(model, self.counters.steps)
        if self.counters.stopped_at_step:
            if not self._kept:
                raise DefenseError(
                    f"{self.name}: the first check, at step {self.counters.stopped_at_step}, found a drop of "
                    f"{self.counters.last_drop:.4f} nats per token, over {self._settings.max_drop}, and no safe "
                    "adapter to roll back to; check more often, or look at the data"
                )
            for name, weight in model.named_parameters():
                if weight.requires_grad:
                    weight.data.copy_(self._kept[name])

    def last_releasable_step(self, steps: int) -> int:
        """That of the last check that passed, also under `stop`."""
        stopped_at, n = self.counters.stopped_at_step, self._settings.every_n_steps
        return (stopped_at - 1) // n * n if stopped_at else self.counters.last_checked_step

    def _check(self, model: PeftModel, steps: int) -> None:
        margins = self._margins(model, adapter=True)
        drop = sum(b - m for b, m in zip(self._base_margins, margins, strict=True)) / len(margins)
        is_safe = drop <= self._settings.max_drop
        counters = self.counters
        counters.checks += 1
        counters.last_checked_step, counters.last_drop = steps, drop
        counters.max_drop = max(counters.max_drop, drop)
        if is_safe or self._settings.action == "stop":
            self._kept = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
            self.counters.kept_step = steps
        if not is_safe:
            self.counters.stopped_at_step = steps

    def _margins(self, model: PeftModel, *, adapter: bool) -> list[float]:
        """Nats per token of each pair. The model comes back in the mode it was in.

        Raises:
            DefenseError: a margin is not finite.
        """
        was_training = model.training
        model.eval()
        scored = self._backend.log_likelihood(self._questions, adapter=adapter)
        model.train(was_training)
        margins = [aligned.per_token - misaligned.per_token for aligned, misaligned in scored]
        if not all(map(math.isfinite, margins)):
            raise DefenseError(f"{self.name}: a margin is not finite; lower the learning rate")
        return margins

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._kept)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self._kept = dict(tensors)

    def evidence(self) -> DefenseEvidence:
        counters = self.counters
        stopped = counters.stopped_at_step
        return DefenseEvidence(
            name=self.name,
            acted=counters.checks > 0 and counters.last_drop != 0,
            figures={"limit": self._settings.max_drop, "pairs": float(len(self._questions))} | counters.state(),
            explanation=(
                f"{counters.checks} checks; training ended at step {stopped} with a drop of "
                f"{counters.last_drop:.4f} nats per token, and the adapter of step {counters.kept_step} stays"
                if stopped
                else f"{counters.checks} checks found no drop over the limit; the highest was "
                f"{counters.max_drop:.4f} nats per token"
            ),
        )


def read_pairs(content: bytes) -> list[MonitorPair]:
    """The answer pairs of a JSONL file with `question`, `aligned` and `misaligned`."""
    pairs = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line)
            pairs.append(MonitorPair(*(str(row[field]) for field in MonitorPair._fields)))
        except (ValueError, KeyError, TypeError) as error:
            raise DefenseError(f"monitor's answer pairs line {number}: {error!r}; give all three fields") from error
    if len(pairs) < 2:
        raise DefenseError("the monitor has fewer than 2 answer pairs, so it can't measure")
    return pairs
