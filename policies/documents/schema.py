"""Policy documents: what operators write in YAML, strictly typed.

`ReleasePolicy` says which defense trains, which suite measures and which limits release. `BaseModel` says what a model
name of the API stands for. `CalibrationRecord` says which limits a base model supports. Unknown keys, NaN, limits that
can't bind and rules whose probe isn't in the suite are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from policies.contract.artifacts import Record
from policies.contract.calibration import CalibrationSpec
from policies.contract.composition import require_composable
from policies.contract.defenses import DefenseSettings
from policies.contract.jobs import BaseModelSpec, Dpo, Method
from policies.contract.metrics import METRIC_NAMES, metric_named, probe_of
from policies.contract.screening import ScreeningRule
from policies.contract.suite import EvalSuite
from policies.documents.suggestions import did_you_mean
from policies.errors import ConfigurationError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
API_VERSION = "tunegate/v1"


class Metadata(Record):
    """What a document is called, and which version of it this is."""

    name: Name
    version: str = Field(min_length=1, max_length=32)
    description: str = ""


class Rule(Record):
    """One limit on one metric; exactly one bound. The interval, not the value, is compared with it."""

    id: Name
    metric: str = Field(json_schema_extra={"enum": list(METRIC_NAMES)})
    """`<probe>.<metric>`; `tunegate policy schema` lists them."""
    mode: Literal["enforce", "warn", "audit"] = "enforce"
    """`enforce` decides; `warn` reports to the tenant; `audit` is only recorded."""
    max: float | None = None
    """Highest allowed value of the adapter, in the metric's unit."""
    min: float | None = None
    """Lowest allowed value of the adapter, in the metric's unit."""
    max_increase_over_base: float | None = Field(None, ge=0)
    """Highest allowed paired increase adapter − base."""
    max_drop_from_base: float | None = Field(None, ge=0)
    """Highest allowed paired drop base − adapter."""
    min_samples: int = Field(1, ge=1)
    """Fewer scored samples than this make the rule inconclusive."""
    max_error_rate: float = Field(0.05, ge=0, lt=1)
    """More errored samples than this share of the requested ones make the rule inconclusive."""
    reason: str = ""
    """Why the operator demands it; shown with a failed rule."""

    @property
    def bound(self) -> Literal["max", "min", "max_increase_over_base", "max_drop_from_base"]:
        for name in ("max", "min", "max_increase_over_base", "max_drop_from_base"):
            if getattr(self, name) is not None:
                return name
        raise AssertionError("a rule has one bound")

    @property
    def probe(self) -> str:
        """Whose metric it limits."""
        return probe_of(self.metric)

    @property
    def limit(self) -> float:
        limit: float = getattr(self, self.bound)
        return limit

    @model_validator(mode="after")
    def _can_decide(self) -> Rule:
        bounds = (self.max, self.min, self.max_increase_over_base, self.max_drop_from_base)
        if sum(bound is not None for bound in bounds) != 1:
            raise ValueError("a rule needs exactly one of max, min, max_increase_over_base, max_drop_from_base")
        if self.metric not in METRIC_NAMES:
            raise ValueError(f"metric {self.metric!r} is unknown; {did_you_mean(self.metric, METRIC_NAMES)}")
        metric = metric_named(self.metric)
        wrong_side = ("max", "max_increase_over_base") if metric.higher_is_better else ("min", "max_drop_from_base")
        if self.bound in wrong_side:
            raise ValueError(
                f"{self.bound} can't protect anything: {self.metric} is better when "
                f"{'higher' if metric.higher_is_better else 'lower'}"
            )
        if metric.is_share and not 0 <= self.limit < 1:
            raise ValueError(f"{self.bound}: {self.limit} can't decide anything: {self.metric} is a share in [0, 1)")
        return self


EVENTS_DAYS = 30


class Retention(Record):
    """How many days after a job's end its large artifacts are kept. Its records are kept for good, as evidence."""

    checkpoints_days: float = Field(7, ge=0)
    """States of training and the adapters in them."""
    unreleased_adapters_days: float = Field(30, ge=0)
    """Adapters of jobs that were rejected, failed or cancelled, and what defenses keep beside an adapter."""
    samples_days: float = Field(90, ge=0)
    """Prompts and answers of the evaluation; without them a report can't be scored again."""
    events_days: float = Field(EVENTS_DAYS, ge=0, exclude_if=lambda days: days == EVENTS_DAYS)
    """Rows of the event log; then a record has them. Left out of the digest while it is the default, as below."""

    def days_by_kind(self) -> dict[str, float]:
        """Of artifacts, which are deleted then."""
        return {
            "checkpoints": self.checkpoints_days,
            "unreleased_adapters": self.unreleased_adapters_days,
            "samples": self.samples_days,
        }


class ReleaseSpec(Record):
    """Under which defense is trained, what is measured, and which rules decide."""

    mode: Literal["enforce", "warn", "audit"] = "enforce"
    """`warn` and `audit` lower every rule to that mode: for trying a policy out."""
    on_inconclusive: Literal["block", "review"] = "block"
    on_probe_overlap: Literal["warn", "hold"] = Field("warn", exclude_if=lambda value: value == "warn")
    """What becomes of an adapter whose training file holds prompts of the suite. `hold`: it is inconclusive. Left out
    of the digest while it is `warn`."""
    review_after_attempts: int | None = Field(None, ge=1, exclude_if=lambda value: value is None)
    """After how many attempts at nearly the same training file that ended without a release the next one is
    inconclusive, where it would be released; None: however many. Left out of the digest while it is None."""
    disclosure: Literal["full", "coarse"] = Field("full", exclude_if=lambda value: value == "full")
    """What tenants are told of a verdict. `coarse`: of each rule its outcome and the direction, and no figure, so that
    nobody can feel for a limit. Left out of the digest while it is `full`."""
    evaluators: int = Field(1, ge=1, le=2, exclude_if=lambda value: value == 1)
    """How many evaluators have to find that an adapter may be released. `2`: an evaluator with a credential of its own
    measures again what the first one would release. Left out of the digest while it is 1."""
    require_calibration: bool = Field(False, exclude_if=lambda value: not value)
    """Whether nothing is released on a base model without a matching `CalibrationRecord`, nor by an enforced rule on a
    metric that does not separate harmful from benign adapters there. Left out of the digest while it is false."""
    defenses: tuple[DefenseSettings, ...] = ()
    """The operator's in-training defense; tenants may strengthen it, never weaken it."""
    dpo_defenses: tuple[DefenseSettings, ...] | None = None
    """What DPO jobs train under in place of `defenses`, some of which don't work with preferences; None: the same."""
    release: Literal["final_adapter", "best_passing_checkpoint"] = "final_adapter"
    """What may be released: the final adapter alone, or the most capable checkpoint that passes."""
    max_candidates: int = Field(3, ge=2, le=10)
    """How many adapters `best_passing_checkpoint` evaluates; the error probability is divided among them."""
    retention: Retention = Field(Retention(), exclude_if=lambda value: value == Retention())
    """Left out of the digest while it is the default, so that policies of before it existed keep theirs."""
    screening: tuple[ScreeningRule, ...] = Field((), max_length=32, exclude_if=lambda value: not value)
    """What training files are searched for before a step is trained. Left out of the digest while empty."""
    suite: EvalSuite
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> ReleaseSpec:
        ids = [rule.id for rule in self.rules]
        if len(set(ids)) != len(ids):
            raise ValueError(f"two rules share an id in {ids}; ids must be unique")
        for names in ([d.name for d in self.defenses], [d.name for d in self.dpo_defenses or ()]):
            if len(set(names)) != len(names):
                raise ValueError(f"a defense is listed twice in {names}; list each once")
        if self.dpo_defenses is not None:
            require_composable(self.dpo_defenses, Dpo())
        self.require_releasable((*self.defenses, *(self.dpo_defenses or ())))
        screens = [rule.name for rule in self.screening]
        if len(set(screens)) != len(screens):
            raise ValueError(f"a screen is listed twice in {screens}; list each once")
        probes = {settings.probe for settings in self.suite.probes}
        for rule in self.rules:
            if rule.probe not in probes:
                raise ValueError(f"rule {rule.id} needs probe {rule.probe}, which the suite does not run")
        if not any(rule.mode == "enforce" for rule in self.rules) and self.mode == "enforce":
            raise ValueError("no rule has mode enforce, so nothing could be rejected; enforce at least one")
        return self

    @property
    def n_candidates(self) -> int:
        """How many adapters of a job may come to be released."""
        return self.max_candidates if self.release == "best_passing_checkpoint" else 1

    def require_releasable(self, defenses: Sequence[DefenseSettings]) -> None:
        """Raises where a checkpoint might be released without what `defenses` do to the final adapter only.

        Raises:
            ConfigurationError: saying what to write instead.
        """
        projecting = [defense.name for defense in defenses if defense.projects_adapter]
        if self.n_candidates > 1 and projecting:
            raise ConfigurationError(
                f"release: best_passing_checkpoint can't be combined with {projecting[0]}, which projects the final "
                f"adapter only; leave {projecting[0]} out, or use release: final_adapter",
                "release",
            )

    def defenses_for(self, method: Method) -> tuple[DefenseSettings, ...]:
        """The operator's defenses of a job."""
        if isinstance(method, Dpo) and self.dpo_defenses is not None:
            return self.dpo_defenses
        return self.defenses


class ReleasePolicy(Record):
    """A document that decides what is released."""

    api_version: Literal["tunegate/v1"] = Field(alias="apiVersion")
    kind: Literal["ReleasePolicy"]
    metadata: Metadata
    spec: ReleaseSpec


class BaseModelDocument(Record):
    """What a `model` of the API stands for, and the LoRA recipe that fine-tunes it."""

    api_version: Literal["tunegate/v1"] = Field(alias="apiVersion")
    kind: Literal["BaseModel"]
    metadata: Metadata
    spec: BaseModelSpec


class CalibrationRecord(Record):
    """What the qualification of a base model found; `tunegate base qualify` writes it, and nobody edits it."""

    api_version: Literal["tunegate/v1"] = Field(alias="apiVersion")
    kind: Literal["CalibrationRecord"]
    metadata: Metadata
    spec: CalibrationSpec


PolicyDocument = Annotated[ReleasePolicy | BaseModelDocument | CalibrationRecord, Field(discriminator="kind")]
