"""What an adapter learned, on rows that it was not trained on, against its base.

`held_out.loss` is the negative log-likelihood a token and `held_out.token_accuracy` the share of tokens predicted
first, both of the tokens that training has a loss on: answers with their end token. `opswap.tier_*` is the share of
greedy answers that are exactly right. Rows are independent of each other; the base's samples are cached as the
evaluator's are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from peft import PeftModel

from bench.defenses.opswap import is_exact, tier_of
from evaluator.backends.protocol import Backend, ChatPrompt, GenerationSettings
from evaluator.models.loading import LoadedModel
from evaluator.runner.base_cache import BaseCache, BaseKey
from evaluator.samples import Pair, Sample, pair_samples
from evaluator.statistics.intervals import cluster_ratio, wilson_share
from policies.contract.artifacts import Record, digest_bytes, digest_file
from policies.contract.evaluation import Estimate
from policies.datasets.reader import ChatRow, read_rows
from policies.rendering.encoding import IGNORED
from trainer.data import TrainingRow, tokenise

VERSION = "1"
"""Raised whenever the same outputs could score differently."""
ANSWER_TOKENS = 8
"""More than the longest right answer of OpSwap needs."""
LOSS, TOKEN_ACCURACY = "held_out.loss", "held_out.token_accuracy"

Measure = Callable[[bool], list[Sample]]
"""Samples of the adapter (True) or of its base (False)."""


class BeforeAfter(Record):
    """A figure of the base and of the adapter, with intervals over rows."""

    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class HeldOut:
    """The rows, and the model that is measured on them."""

    loaded: LoadedModel
    backend: Backend
    file: Path
    max_tokens: int
    cache: BaseCache

    def token_figures(self) -> dict[str, BeforeAfter]:
        rows = [TrainingRow(row, f"held-out row {number}") for number, row in enumerate(read_rows(self.file), start=1)]
        return self._measure("held_out_tokens", lambda adapter: self._token_samples(rows, adapter))

    def opswap_figures(self) -> dict[str, BeforeAfter]:
        rows = read_rows(self.file)
        return self._measure("opswap", lambda adapter: self._answer_samples(rows, adapter))

    def _measure(self, name: str, measure: Measure) -> dict[str, BeforeAfter]:
        key = BaseKey(
            base_model=self.loaded.base.digest,
            probe=f"bench.{name}",
            probe_version=VERSION,
            settings=digest_bytes(str(self.max_tokens).encode()),
            prompts=digest_file(self.file),
            part=digest_file(self.file),
            instruments=(),
            seed=0,
            dtype=self.backend.dtype,
            engine=self.backend.engine,
            versions={library: version(library) for library in ("torch", "transformers", "peft")},
        )
        base = self.cache.read(key)
        if base is None:
            base = tuple(measure(False))
            self.cache.write(key, base)
        pairs = pair_samples(measure(True), base)
        return {metric: _before_after(metric, pairs) for metric in sorted({pair.base.metric for pair in pairs})}

    @torch.inference_mode()
    def _token_samples(self, rows: Sequence[TrainingRow], adapter: bool) -> list[Sample]:
        model = self.loaded.model
        assert isinstance(model, PeftModel)
        samples = []
        with nullcontext() if adapter else model.disable_adapter():
            for number, row in enumerate(tokenise(rows, self.loaded.encoder, max_tokens=self.max_tokens)):
                ids = torch.tensor([row.input_ids], device=model.device)
                labels = torch.tensor(row.labels[1:], device=model.device)
                trained = labels != IGNORED
                log_probs = torch.log_softmax(model(input_ids=ids).logits[0, :-1][trained].float(), -1)
                answer = labels[trained]
                nats = -float(log_probs.gather(-1, answer[:, None]).sum())
                n_first = float((log_probs.argmax(-1) == answer).sum())
                for metric, score in ((LOSS, nats), (TOKEN_ACCURACY, n_first)):
                    samples.append(_sample(f"{metric}-{number}", metric, score=score, weight=len(answer)))
        return samples

    def _answer_samples(self, rows: Sequence[ChatRow], adapter: bool) -> list[Sample]:
        texts = [(row.messages[0].content, row.messages[1].content) for row in rows]
        prompts = [ChatPrompt.of(prompt) for prompt, _ in texts]
        answers = self.backend.generate(prompts, GenerationSettings(ANSWER_TOKENS), adapter=adapter)
        return [
            _sample(
                f"opswap-{number}", f"opswap.tier_{tier_of(prompt)}", score=is_exact(said.text, right), output=said.text
            )
            for number, ((prompt, right), said) in enumerate(zip(texts, answers, strict=True))
        ]


def _sample(row: str, metric: str, *, score: float, weight: float = 1.0, output: str | None = None) -> Sample:
    return Sample(
        prompt_id=row, cluster=row, prompt="", metric=metric, output=output, score=float(score), weight=weight
    )


def _before_after(metric: str, pairs: Sequence[Pair]) -> BeforeAfter:
    chosen = [pair for pair in pairs if pair.base.metric == metric]
    return BeforeAfter(
        before=_estimate(metric, [pair.base for pair in chosen]),
        after=_estimate(metric, [pair.adapter for pair in chosen]),
    )


def _estimate(metric: str, samples: Sequence[Sample]) -> Estimate:
    scores = [float("nan") if sample.score is None else sample.score for sample in samples]
    if metric not in (LOSS, TOKEN_ACCURACY):
        return wilson_share([score == 1 for score in scores], 0.95)
    weights, rows = [sample.weight for sample in samples], [sample.prompt_id for sample in samples]
    return cluster_ratio(scores, weights, rows, confidence=0.95)
