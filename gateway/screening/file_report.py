"""From what a file's reader found to the report that a policy makes of it, with the guard model asked in between.

The reader runs where there is no network; so it hands some rows back, and the guard model is asked here.
"""

from __future__ import annotations

from gateway.screening.guard_model import NAME as GUARD
from gateway.screening.guard_model import GoOn, ask_guard, guard_settings
from gateway.settings import GatewaySettings
from gateway.tables.jobs import JobEvent
from policies.contract.screening import (
    SampledRow,
    ScreenFound,
    ScreeningFacts,
    ScreeningReport,
    ScreeningRule,
    ScreeningTask,
)
from policies.contract.suite import EvalSuite
from policies.documents.schema import ReleasePolicy
from policies.overlap.built_in_prompts import search_for
from policies.screening.judging import Judge, ScreenedFile, judged

REFUSED_FILES = "near_duplicates.refused_files"
"""Looked at when a job is about to queue (`gateway.jobs.validation`), and by no dry run."""
_LEVELS = {"clean": "info", "warn": "warn", "review": "warn", "block": "error"}


def screening_task(policy: ReleasePolicy, settings: GatewaySettings) -> ScreeningTask | None:
    """What the file's reader looks for; None where the policy has no screening."""
    rules = tuple(rule for rule in policy.spec.screening if rule.name != REFUSED_FILES)
    return _task(rules, policy.spec.suite, settings) if policy.spec.screening else None


def dry_run_task(judge: Judge, settings: GatewaySettings) -> ScreeningTask:
    """The same without a job."""
    return _task(judge.rules, judge.suite, settings)


def _task(rules: tuple[ScreeningRule, ...], suite: EvalSuite | None, settings: GatewaySettings) -> ScreeningTask:
    asks_guard = any(rule.screen == GUARD for rule in rules) and guard_settings(settings) is not None
    return ScreeningTask(
        screens=tuple(rule.name for rule in rules if rule.screen != GUARD),
        sample_rows=settings.guard_rows if asks_guard else 0,
        prompts=None if suite is None else search_for(suite),
    )


def with_guard(
    rules: tuple[ScreeningRule, ...],
    facts: ScreeningFacts,
    sample: tuple[SampledRow, ...],
    *,
    settings: GatewaySettings,
    go_on: GoOn = lambda: True,
) -> ScreeningFacts:
    """The facts, and what the guard model says where a rule asks for it."""
    rule = next((rule for rule in rules if rule.screen == GUARD), None)
    if rule is None:
        return facts
    guard = guard_settings(settings)
    return facts.joined(ask_guard(guard, sample, n_rows=facts.rows, threshold=rule.threshold, go_on=go_on))


def refused_facts(n_jobs: int, share: float) -> ScreeningFacts:
    """What comparing a job's file with those of refused jobs gave.

    Args:
        n_jobs: refused jobs whose files it is near; 0 where there is none.
        share: the largest share that it has in common with one of them.
    """
    found = ScreenFound(
        id=REFUSED_FILES,
        screen=REFUSED_FILES,
        category="refused_data",
        count=max(1, n_jobs),
        of=max(1, n_jobs),
        severity="high",
        share=min(1.0, share),
        what=f"up to {share:.0%} of what the file trains was in the files of {n_jobs} jobs whose safety check failed",
        advice="change the data, not only its form",
    )
    return ScreeningFacts(rows=0, by=(REFUSED_FILES,), found=(found,) if n_jobs else ())


def screening_event(report: ScreeningReport) -> JobEvent:
    """The `moderation_checks` event of a report: what it holds, under the name that OpenAI gives such events."""
    n_found = sum(each.action != "record" for each in report.findings)
    message = f"Screening of the training file: {report.verdict}. {n_found} findings in {report.screened.rows} rows."
    data = report.model_dump(mode="json", by_alias=True)
    return JobEvent(level=_LEVELS[report.verdict], message=message, type="moderation_checks", data=data)


def report_on(file: ScreenedFile, facts: ScreeningFacts, judge: Judge) -> ScreeningReport:
    """What the judge makes of the facts."""
    return judged(file, facts, rules=judge.rules, policy=judge.policy, mode=judge.mode)
