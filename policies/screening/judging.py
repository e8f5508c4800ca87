"""What a policy makes of the facts: which findings warn, hold or block, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from policies.contract.artifacts import Digest
from policies.contract.exact_binomial import exact_interval
from policies.contract.screening import (
    NOT_ASKED_FOR,
    Action,
    FoundAction,
    NotScreened,
    Screened,
    ScreenFound,
    ScreeningFacts,
    ScreeningFinding,
    ScreeningPolicy,
    ScreeningReport,
    ScreeningRule,
    Verdict,
)
from policies.contract.suite import EvalSuite
from policies.documents.schema import ReleasePolicy

Mode = Literal["enforce", "warn", "audit"]
"""Of the policy."""
DEFAULT_RULES: tuple[ScreeningRule, ...] = (
    ScreeningRule(screen="secrets", action="block"),
    ScreeningRule(screen="pii", action="warn"),
    ScreeningRule(screen="near_duplicates", action="warn"),
)
"""For who screens a file without a policy, or by one that screens nothing."""
_ORDER: tuple[FoundAction, ...] = ("record", "warn", "review", "block")
_ALL_SCREENS = ("secrets", "pii", "near_duplicates", "guard", "probe_overlap", "toxicity", "canary_llr")
_TOLD_ROWS = 3


class ScreenedFile(NamedTuple):
    """Which file the facts are about."""

    name: str
    digest: Digest


class Judge(NamedTuple):
    """By what findings are judged."""

    rules: tuple[ScreeningRule, ...]
    policy: Digest | None = None
    """Whose rules they are; None: nobody's."""
    mode: Mode = "enforce"
    suite: EvalSuite | None = None
    """Of that policy."""


def judge_of(policy: ReleasePolicy | None) -> Judge:
    """The policy's rules where it has any, or the usual ones, which are then not said to be the policy's."""
    if policy is None or not policy.spec.screening:
        return Judge(DEFAULT_RULES)
    return Judge(policy.spec.screening, policy.digest, policy.spec.mode, policy.spec.suite)


def judged(
    file: ScreenedFile,
    facts: ScreeningFacts,
    *,
    rules: Sequence[ScreeningRule],
    policy: Digest | None,
    mode: Mode = "enforce",
) -> ScreeningReport:
    """The report; without a policy's digest it says that the rules are no policy's.

    A screen of a rule that is not among those that ran counts as not screened, whatever `facts` say.
    """
    findings = tuple(_findings(facts, rules, mode))
    screened = Screened(rows=facts.rows, by=facts.by, not_screened=tuple(_not_screened(facts, rules)))
    return ScreeningReport(
        file=file.name,
        file_digest=file.digest,
        screened=screened,
        verdict=_verdict(findings, screened, rules=rules, mode=mode),
        findings=findings,
        instruments=facts.instruments,
        policy=ScreeningPolicy(policy_digest=policy, rules="usual" if policy is None else "policy"),
        cost_seconds=facts.cost_seconds,
    )


def extended(
    report: ScreeningReport, later: ScreeningFacts, *, rules: Sequence[ScreeningRule], mode: Mode = "enforce"
) -> ScreeningReport:
    """The report with what a later phase of the job found in the same file. What was found before stays found.

    Args:
        rules: the same as before, of the policy that the report names.
    """
    findings = (*report.findings, *_findings(later, rules, mode))
    still = tuple(each for each in report.screened.not_screened if each.by not in later.by)
    told = {each.by: each for each in later.not_screened}
    not_screened = tuple(told.get(each.by, each) for each in still)
    screened = Screened(rows=report.screened.rows, by=(*report.screened.by, *later.by), not_screened=not_screened)
    return ScreeningReport(
        file=report.file,
        file_digest=report.file_digest,
        screened=screened,
        verdict=_verdict(findings, screened, rules=rules, mode=mode),
        findings=findings,
        instruments=(*report.instruments, *later.instruments),
        policy=report.policy,
        cost_seconds=report.cost_seconds + later.cost_seconds,
    )


def _verdict(
    findings: Iterable[ScreeningFinding],
    screened: Screened,
    *,
    rules: Sequence[ScreeningRule],
    mode: Mode,
) -> Verdict:
    """The worst action. What is asked for and was not looked at is to be reviewed, and so is a look at nothing."""
    actions: list[FoundAction] = [finding.action for finding in findings]
    is_missing = {each.by for each in screened.not_screened} & {rule.name for rule in rules}
    if is_missing or not screened.by or screened.rows == 0:
        actions.append("review" if mode == "enforce" else "warn")
    worst = _worst(actions)
    return "clean" if worst == "record" else worst


def _worst(actions: Iterable[FoundAction]) -> FoundAction:
    found = set(actions)
    return next((action for action in reversed(_ORDER) if action in found), "record")


def _not_screened(facts: ScreeningFacts, rules: Sequence[ScreeningRule]) -> Iterable[NotScreened]:
    told = {each.by for each in facts.not_screened}
    yield from facts.not_screened
    for name in dict.fromkeys(rule.name for rule in rules):
        if name not in told and name not in facts.by:
            yield NotScreened(by=name, reason="nothing here runs this screen")
    asked = {rule.screen for rule in rules} | told
    for name in _ALL_SCREENS:
        if name not in asked and name not in facts.by:
            yield NotScreened(by=name, reason=NOT_ASKED_FOR)


def _findings(facts: ScreeningFacts, rules: Sequence[ScreeningRule], mode: Mode) -> Iterator[ScreeningFinding]:
    """What was found, and of a sample without a hit what it leaves open where that is more than a limit allows."""
    for found in facts.found:
        finding = _finding(found, rules, mode, n_rows=facts.rows)
        if finding.count or finding.forecast is not None or finding.action != "record":
            yield finding


def _finding(found: ScreenFound, rules: Sequence[ScreeningRule], mode: Mode, *, n_rows: int) -> ScreeningFinding:
    share = found.count / found.of if found.share is None else found.share
    interval = exact_interval(min(found.count, found.of), found.of) if found.share is None else (share, share)
    judged_share, judged_count = (interval[1], interval[1] * n_rows) if found.is_sample else (share, found.count)
    actions = [
        _action(found, rule, share=judged_share, count=judged_count) for rule in rules if rule.name == found.screen
    ]
    action = _worst(actions)
    return ScreeningFinding(
        id=found.id,
        category=found.category,
        count=found.count,
        share=share,
        interval=interval,
        rows=found.rows,
        severity=found.severity,
        action=action if mode == "enforce" else _lowered(action),
        message=_message(found, interval[1]),
        forecast=found.forecast,
    )


def _action(found: ScreenFound, rule: ScreeningRule, *, share: float, count: float) -> FoundAction:
    """Limits are for the whole file, so of a sample the upper end of the interval has to keep them."""
    limit = rule.max_share
    if rule.max_share_over_benign is not None:
        limit, share = rule.max_share_over_benign, share - found.benign_share
    if found.forecast is not None:
        is_over = found.forecast.over_benign > (rule.max_forecast_over_benign or 0)
    elif limit is not None:
        is_over = share > limit
    else:
        is_over = found.count > 0 if rule.max_rows is None else count > rule.max_rows
    action: Action = rule.action
    return action if is_over else "record"


def _lowered(action: FoundAction) -> FoundAction:
    """Under a policy that only warns or audits."""
    return action if action == "record" else "warn"


def _message(found: ScreenFound, upper_end: float) -> str:
    if found.count == 0 and found.forecast is None:
        seen, left = f"no row, of {found.of} that were looked at,", f"up to {upper_end:.2%} of all rows"
        return f"{seen} holds {found.what}, which leaves {left}: more than is allowed"
    if not found.rows:
        return f"{found.what}; {found.advice}"
    rows = [str(each if isinstance(each, int) else each.row) for each in found.rows[:_TOLD_ROWS]]
    more = found.count - len(rows)
    places = f"{'row' if found.count == 1 else 'rows'} {', '.join(rows)}" + (f" and {more} more" if more > 0 else "")
    return f"{places} {'holds' if found.count == 1 else 'hold'} {found.what}; {found.advice}"
