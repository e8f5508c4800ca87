"""The first phase of a training: models look at the rows of the file before any of them is trained.

Which screens run, the job's policy says. One that can't run is told as not screened, with the reason, and the gateway
holds the release for it. A file that the policy blocks ends the run here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from evaluator.backends.engines import load_for_transformers
from evaluator.canaries.pair_files import CanarySet, find_pair
from evaluator.models.base_models import ResolvedBase, resolve_base_model, weights_digest
from evaluator.models.loading import LoadedModel, load_base
from policies.contract.artifacts import Digest
from policies.contract.base_models import BaseTextFiles, require_text
from policies.contract.jobs import JobSpec
from policies.contract.screening import (
    MODEL_SCREENS,
    ModelScreening,
    NotScreened,
    ScreeningFacts,
    ScreeningReport,
    ScreeningRule,
)
from policies.contract.store import ArtifactStore
from policies.contract.worker_api import Progress, WorkerEvent
from policies.documents.schema import ReleasePolicy
from policies.errors import ArtifactMissingError, TrainingError, TunegateError
from policies.screening.judging import ScreenedFile, judged
from policies.tenant_text import for_tenants
from trainer.loop.progress import Hooks
from trainer.recipe import StoppedError
from trainer.screening.anchoring import AnchoringScreen
from trainer.screening.behaviour_forecast import MAX_ROWS as FORECAST_ROWS
from trainer.screening.behaviour_forecast import ForecastScreen, forecast_found
from trainer.screening.canary_llr import CanaryScreen
from trainer.screening.references import benign_kinds, benign_rows
from trainer.screening.row_scores import RowScreen, cached_scores, found_in, limit_of, told
from trainer.screening.rows import MAX_ROWS, Drawn, drawn_rows
from trainer.screening.toxicity import ToxicityScreen

STAGE = "screening"
SECONDS_BETWEEN_REPORTS = 5.0


class UnsafeFileError(TrainingError):
    """The policy blocks what models found in the training file."""

    code = "unsafe_file"
    screening: Digest | None = None
    """Of the stored `ModelScreening`."""


class ScreeningFiles(NamedTuple):
    """Where the phase finds what it needs."""

    training_file: Path
    cache_dir: Path
    store: ArtifactStore
    """The one that all jobs share."""
    canaries: CanarySet = "builtin"
    max_rows: int = MAX_ROWS


def canaries_of(spec: JobSpec) -> CanarySet:
    """The pair that the suite measures with, where it names one."""
    named: list[CanarySet] = [each for probe in spec.suite.probes if (each := getattr(probe, "canaries", None))]
    return named[0] if named else "builtin"


def model_rules(spec: JobSpec, store: ArtifactStore) -> tuple[ScreeningRule, ...]:
    """The rules of the job's policy for screens of this phase.

    None where the policy is not in the store: then nothing is screened, and the gateway, which has it, holds the
    release.
    """
    try:
        policy = store.get_record(spec.policy, ReleasePolicy)
    except ArtifactMissingError:
        return ()
    return tuple(rule for rule in policy.spec.screening if rule.screen in MODEL_SCREENS)


def screen_file(
    spec: JobSpec, rules: Sequence[ScreeningRule], files: ScreeningFiles, *, hooks: Hooks
) -> ModelScreening:
    """Run the screens of `rules`.

    Raises:
        DatasetError: a row can't be trained on, as training would say.
        StoppedError: `hooks.should_stop` said so.
    """
    began = time.monotonic()
    hooks.tell(f"Screening the training file by {', '.join(rule.screen for rule in rules)}")
    resolved = resolve_base_model(spec.base_model, files.cache_dir, may_remember=True)
    require_text(BaseTextFiles.of(resolved.folder), spec.base_text, spec.base_model.name)
    loaded = _load(spec, resolved)
    drawn = drawn_rows(files.training_file, spec, loaded.encoder, max_rows=files.max_rows)
    phase = _Phase(loaded, drawn, files, hooks, spec.base_model.max_sequence_tokens)
    facts = ScreeningFacts(rows=drawn.n_rows)
    for rule in rules:
        facts = facts.joined(phase.run(rule))
    facts = facts.model_copy(update={"cost_seconds": time.monotonic() - began})
    return ModelScreening(training_file=spec.training_file, base_model=resolved.digest, facts=facts)


def require_trainable(screening: ModelScreening, spec: JobSpec, store: ArtifactStore) -> None:
    """Raises `UnsafeFileError` where the job's policy blocks what was found; the gateway judges again."""
    policy = store.get_record(spec.policy, ReleasePolicy)
    file = ScreenedFile("training_file", spec.training_file)
    rules = [rule for rule in policy.spec.screening if rule.screen in MODEL_SCREENS]
    report = judged(file, screening.facts, rules=rules, policy=policy.digest, mode=policy.spec.mode)
    if report.verdict == "block":
        raise UnsafeFileError(f"The job failed due to an unsafe training file: {_blocking(report)}.", "training_file")


def _blocking(report: ScreeningReport) -> str:
    return "; ".join(f"{each.id}: {each.message}" for each in report.findings if each.action == "block")


def _load(spec: JobSpec, resolved: ResolvedBase) -> LoadedModel:
    quantization = spec.base_model.trainer.quantization
    return load_for_transformers(resolved) if quantization == "none" else load_base(resolved, quantization=quantization)


@dataclass
class _Phase:
    """One run over one file."""

    loaded: LoadedModel
    drawn: Drawn
    files: ScreeningFiles
    hooks: Hooks
    max_tokens: int
    reported: float = field(default=0.0)

    def run(self, rule: ScreeningRule) -> ScreeningFacts:
        """What the screen of a rule found, or why it could not look."""
        try:
            make = MAKERS.get(rule.screen)
            return self._forecast(rule) if make is None else self._found(make(self.loaded, self.files), rule)
        except StoppedError:
            raise
        except TunegateError as error:
            self.hooks.tell(f"Not screened by {rule.screen}: {for_tenants(error.message)}")
            return _not_screened(rule, for_tenants(error.message))

    def _found(self, screen: RowScreen, rule: ScreeningRule) -> ScreeningFacts:
        scores = cached_scores(screen, self.drawn.rows, self.files.cache_dir, advance=self._advance(rule.screen))
        benign: list[float] = []
        if screen.fixed_threshold is None:
            rows = benign_rows(self.loaded.encoder, max_tokens=self.max_tokens)
            benign = cached_scores(
                screen, rows, self.files.cache_dir, advance=self._advance(f"{rule.screen}, reference")
            )
        limit = limit_of(screen.fixed_threshold if rule.threshold is None else rule.threshold, benign)
        self.hooks.tell(f"Screened by {rule.screen}: {told(self.drawn, scores, limit)}")
        found = found_in(screen, self.drawn, scores, limit)
        return ScreeningFacts(
            rows=self.drawn.n_rows,
            by=(screen.name,),
            found=() if found is None else (found,),
            instruments=(screen.instrument(),),
        )

    def _forecast(self, rule: ScreeningRule) -> ScreeningFacts:
        """The figure of the whole file."""
        kinds = benign_kinds(self.loaded.encoder, max_tokens=self.max_tokens)
        screen = ForecastScreen(self.loaded, kinds, self.files.cache_dir)
        rows = self.drawn.some(FORECAST_ROWS)
        found = forecast_found(screen.forecast(rows, self._advance(rule.screen)), self.drawn)
        self.hooks.tell(f"Screened by {rule.screen}: {found.what}")
        return ScreeningFacts(
            rows=self.drawn.n_rows, by=(screen.name,), found=(found,), instruments=(screen.instrument(),)
        )

    def _advance(self, what: str) -> Callable[[int, int], None]:
        def advance(done: int, total: int) -> None:
            if self.hooks.should_stop():
                raise StoppedError("stopped on request while the file was screened")
            if done < total and time.monotonic() - self.reported < SECONDS_BETWEEN_REPORTS:
                return
            self.reported = time.monotonic()
            progress = Progress(step=done, total_steps=total, stage=STAGE)
            message = f"Screening by {what}: {done}/{total}"
            self.hooks.report(WorkerEvent(type="progress", message=message, progress=progress))

        return advance


def _canaries(loaded: LoadedModel, files: ScreeningFiles) -> RowScreen:
    return CanaryScreen(loaded, find_pair(files.canaries, weights_digest(loaded.base), files.cache_dir, files.store))


Make = Callable[[LoadedModel, ScreeningFiles], RowScreen]
MAKERS: Mapping[str, Make] = {
    "toxicity": lambda loaded, files: ToxicityScreen(),
    "canary_llr": _canaries,
    "anchoring": lambda loaded, files: AnchoringScreen(loaded),
}
"""Screens of rows of this phase by their name in a policy; the other one forecasts."""


def _not_screened(rule: ScreeningRule, reason: str) -> ScreeningFacts:
    return ScreeningFacts(rows=0, not_screened=(NotScreened(by=rule.name, reason=reason),))
