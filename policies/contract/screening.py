"""Screening of a training file before a step is trained: what a policy asks for, and the report of what was found.

A screen warns, holds or blocks; none of them releases. What was asked for and could not be looked at is told as not
screened, and holds a release like a finding would: not screened is never clean.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from policies.contract.artifacts import Digest, Record

ScreenName = Literal[
    "secrets",
    "pii",
    "near_duplicates",
    "probe_overlap",
    "toxicity",
    "guard",
    "canary_llr",
    "anchoring",
    "behaviour_forecast",
]
Action = Literal["warn", "review", "block"]
FoundAction = Literal["record", "warn", "review", "block"]
"""`record`: found, but within what the policy allows."""
Verdict = Literal["clean", "warn", "review", "block"]
Severity = Literal["low", "medium", "high"]
MIN_COMPARED_SHARE = 0.5
"""Files that share less are not held against each other."""
MAX_LISTED_ROWS = 20
"""Rows that a finding names; all are counted."""
NOT_ASKED_FOR = "not asked for"
"""Why a screen that no rule names did not run: the one reason that holds nothing."""
_SCORING = frozenset({"toxicity", "guard", "canary_llr", "anchoring"})
"""Screens with a score a row, on which a threshold can stand."""
MODEL_SCREENS = frozenset({"toxicity", "canary_llr", "anchoring", "behaviour_forecast"})
"""Screens that the trainer runs before its first step; the others are run when the file is validated."""
FORECAST = "behaviour_forecast"
"""The one screen that looks at the file as a whole and has no rows to tell."""
_OVER_BENIGN = frozenset({"canary_llr", "anchoring"})
"""Screens whose share is compared with that of benign reference rows."""


class ScreeningRule(Record):
    """One screen, and what follows where it finds more than is allowed."""

    screen: ScreenName
    action: Action
    threshold: float | None = Field(None, ge=0, le=1)
    """Score from which on a row counts, of screens that score rows."""
    max_share: float | None = Field(None, ge=0, lt=1)
    """Highest share of rows, for each kind of finding, that is only recorded."""
    max_rows: int | None = Field(None, ge=0)
    """Most rows, for each kind of finding, that are only recorded. Where no limit is given, none of those looked at."""
    max_share_over_benign: float | None = Field(None, ge=0, lt=1)
    """The same for the share that is above that of benign reference rows."""
    max_forecast_over_benign: float | None = Field(None, ge=0, exclude_if=lambda value: value is None)
    """`behaviour_forecast` only: how far the forecast may lie above that of any benign kind, nats per token."""
    of: Literal["refused_files"] | None = None
    """`near_duplicates` only: compare with the files of jobs whose safety check failed, not within the file."""

    @model_validator(mode="after")
    def _can_decide(self) -> Self:
        limits = (self.max_share, self.max_rows, self.max_share_over_benign)
        if sum(limit is not None for limit in limits) > 1:
            raise ValueError("give one of max_share, max_rows and max_share_over_benign")
        if self.screen == FORECAST and any(limit is not None for limit in limits):
            raise ValueError(f"{FORECAST} counts no rows; use max_forecast_over_benign")
        if self.screen != FORECAST and self.max_forecast_over_benign is not None:
            raise ValueError(f"only {FORECAST} forecasts; use max_share or max_rows with {self.screen}")
        if self.threshold is not None and self.screen not in _SCORING:
            raise ValueError(f"{self.screen} has no scores, so no threshold; leave it out")
        if self.max_share_over_benign is not None and self.screen not in _OVER_BENIGN:
            raise ValueError(f"{self.screen} has no benign reference; use max_share or max_rows")
        if self.of is not None and self.screen != "near_duplicates":
            raise ValueError(f"only near_duplicates has `of`, {self.screen} looks at the file alone; leave it out")
        if self.of is not None and (self.max_rows is not None or (self.max_share or 1) < MIN_COMPARED_SHARE):
            raise ValueError(f"files are compared as a whole; use max_share, from {MIN_COMPARED_SHARE} on")
        return self

    @property
    def name(self) -> str:
        """By which reports call the screen; the two kinds of near duplicates are two screens."""
        return self.screen if self.of is None else f"{self.screen}.{self.of}"


class ScoredRow(Record):
    """A row that a screen scores."""

    row: int = Field(ge=1)
    score: float
    tokens: tuple[tuple[int, int], ...] = Field((), exclude_if=lambda value: not value)
    """First and last token of the parts that stand out."""


class Forecast(Record):
    """What training on a file would change in how a model answers; a figure of the whole file."""

    value: float
    """Mean change of the margin of misaligned over aligned answers, nats per token; above 0 is worse."""
    interval: tuple[float, float]
    """At 95 %, over pairs of answers clustered by category: what other pairs would say, not other rows."""
    benign: tuple[float, float]
    """The lowest and the highest of the same figure of benign kinds, each against all others."""
    alpha: float = Field(gt=0)
    """How far the model's states were moved towards the rows'."""
    rows: int = Field(ge=1)
    """That were looked at."""
    pairs: int = Field(ge=2)

    @property
    def over_benign(self) -> float:
        """How far it lies above the highest benign one."""
        return self.value - self.benign[1]


class ScreeningFinding(Record):
    """One kind of thing that was found. What was matched is told by its row, never quoted."""

    id: str = Field(min_length=1, max_length=64)
    """`secrets.github-token`; begins with the screen."""
    category: str = Field(min_length=1, max_length=64)
    count: int = Field(ge=0)
    """Rows, each once; of files that were refused, files. 0 only of a sample that leaves more than a limit allows."""
    share: float = Field(ge=0, le=1)
    """Of the rows that were looked at."""
    interval: tuple[float, float]
    """Of the share, Clopper–Pearson at 95 %: what more rows from the same source would hold. Of files, the share."""
    rows: tuple[int | ScoredRow, ...] = Field((), max_length=MAX_LISTED_ROWS)
    """The first ones, by the line in the file; counted from 1."""
    severity: Severity
    action: FoundAction
    message: str
    forecast: Forecast | None = Field(None, exclude_if=lambda value: value is None)
    """In place of rows, of which it has none: count and share are 0."""


class NotScreened(Record):
    """A screen that did not run, and why."""

    by: str
    reason: str


class Screened(Record):
    """What was looked at."""

    rows: int = Field(ge=0)
    by: tuple[str, ...]
    not_screened: tuple[NotScreened, ...] = ()


class Instrument(Record):
    """What looked, exactly: equal instruments find the same in equal files."""

    name: str
    version: str = Field("", exclude_if=lambda value: not value)
    config: Digest | None = Field(None, exclude_if=lambda value: value is None)
    """Of its rules or settings."""
    base: Digest | None = Field(None, exclude_if=lambda value: value is None)
    bad: Digest | None = Field(None, exclude_if=lambda value: value is None)
    good: Digest | None = Field(None, exclude_if=lambda value: value is None)


class ScreeningPolicy(Record):
    """By which policy the findings were judged."""

    policy_digest: Digest | None = Field(None, alias="digest")
    """None where the rules are not a policy's: none was named, or the one that was named screens nothing."""
    rules: Literal["policy", "usual"] = Field("policy", exclude_if=lambda value: value == "policy")
    """`usual`: those of whoever screens without rules of a policy. No job is judged by them."""


class ScreeningReport(Record):
    """All that screening has to say about one training file."""

    object: Literal["guardrail.screening"] = "guardrail.screening"
    file: str
    """Its id, or its name where it was not uploaded."""
    file_digest: Digest = Field(alias="digest")
    screened: Screened
    verdict: Verdict
    findings: tuple[ScreeningFinding, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    policy: ScreeningPolicy = ScreeningPolicy()
    cost_seconds: float = Field(ge=0)


class PromptSearch(Record):
    """Which prompts of a suite's probes rows are searched for."""

    probes: tuple[str, ...]
    """Whose built-in prompts are at hand."""
    unsearched: tuple[str, ...] = ()
    """Whose prompts only the evaluator reads."""


class ScreeningTask(Record):
    """What the reader of a file looks for."""

    screens: tuple[str, ...] = ()
    """By `ScreeningRule.name`."""
    sample_rows: int = Field(0, ge=0)
    """Rows that are handed back for a guard model, which is asked elsewhere."""
    prompts: PromptSearch | None = None
    """What `probe_overlap` searches for, if it is asked for."""


class SampledRow(Record):
    """A row, or as much of it as a guard model is asked about."""

    row: int = Field(ge=1)
    text: str
    """Each turn behind its role."""
    is_cut: bool = False
    """It does not hold all that is said in the row."""


class ScreenFound(Record):
    """What a screen counted, before a policy judged it."""

    id: str
    screen: str
    """A `ScreeningRule.name`."""
    category: str
    count: int = Field(ge=0)
    """0 only of a sample: none was found, and how many there may be is still judged."""
    of: int = Field(ge=1)
    """Rows that were looked at."""
    rows: tuple[int | ScoredRow, ...] = Field((), max_length=MAX_LISTED_ROWS)
    severity: Severity
    share: float | None = Field(None, ge=0, le=1)
    """Where it is not count / of."""
    benign_share: float = Field(0, ge=0, le=1)
    """Of benign reference rows, the share that the same screen would count."""
    is_sample: bool = False
    """Only some of the rows were looked at; the upper end of the interval decides."""
    forecast: Forecast | None = Field(None, exclude_if=lambda value: value is None)
    """Of the whole file; then there are no rows."""
    what: str
    """What the rows hold, as the message says it; never of the rows' own words."""
    advice: str
    """What the message says to do about it."""

    @model_validator(mode="after")
    def _forecasts_where_it_must(self) -> Self:
        if (self.forecast is not None) != (self.screen == FORECAST):
            raise ValueError(f"a forecast is what {FORECAST} finds, and nothing else")
        return self


class ScreeningFacts(Record):
    """What a pass over a file yields, before a policy judged it."""

    rows: int = Field(ge=0)
    by: tuple[str, ...] = ()
    not_screened: tuple[NotScreened, ...] = ()
    found: tuple[ScreenFound, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    cost_seconds: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _has_the_forecast(self) -> Self:
        if self.by.count(FORECAST) != sum(each.screen == FORECAST for each in self.found):
            raise ValueError(f"{FORECAST} ran without one figure, or has one without having run")
        return self

    def joined(self, other: ScreeningFacts) -> ScreeningFacts:
        """With what another pass over the same file found; the rows are counted by this one."""
        return ScreeningFacts(
            rows=self.rows,
            by=(*self.by, *other.by),
            not_screened=(*self.not_screened, *other.not_screened),
            found=(*self.found, *other.found),
            instruments=(*self.instruments, *other.instruments),
            cost_seconds=self.cost_seconds + other.cost_seconds,
        )


class ModelScreening(Record):
    """What the trainer's models found in a job's training file before the first step."""

    training_file: Digest
    base_model: Digest
    """Tree digest of the base model folder that was loaded."""
    facts: ScreeningFacts
