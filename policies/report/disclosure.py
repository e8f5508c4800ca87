"""What a tenant is told of a verdict: all of it, or by a policy with `disclosure: coarse` no figure.

Whoever is told to four digits how far a limit is away can walk up to it, job by job. A coarse verdict names each rule,
its outcome and the direction. The records keep all figures for the operator; everything that a tenant is shown of a
`GateDecision` or an `EvalReport` goes through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from policies.contract.artifacts import Record
from policies.contract.release import Decision, GateDecision, RuleOutcome, RuleResult
from policies.contract.training import DefenseEvidence
from policies.documents.schema import ReleasePolicy

Direction = Literal["too_high", "too_low", "not_settled"]

_FAILED: dict[str, Direction] = {
    "max": "too_high",
    "max_increase_over_base": "too_high",
    "min": "too_low",
    "max_drop_from_base": "too_low",
}
"""Where the adapter's figure lies that broke a bound of this kind."""
_ENDED = "The evaluation ended at a rule that failed, so other rules were not measured"
_OTHERWISE = "Something other than the figures of the rules holds the release back; the operator can see what"


class RuleVerdict(Record):
    """One rule of a coarse verdict."""

    rule: str
    outcome: RuleOutcome
    direction: Direction | None
    """Where the adapter lies outside of the limit; `not_settled` if it is not known, null for a pass."""


class Told(NamedTuple):
    """A verdict as the tenant is told it."""

    decision: Decision
    reasons: tuple[str, ...]
    rules: tuple[RuleResult, ...] | tuple[RuleVerdict, ...]
    warnings: tuple[str, ...]
    is_coarse: bool


def told(decision: GateDecision, policy: ReleasePolicy) -> Told:
    """The verdict that `policy` made, as far as it discloses it."""
    if policy.spec.disclosure == "full":
        return Told(decision.decision, decision.reasons, decision.results, decision.warnings, is_coarse=False)
    rules = tuple(_verdict(result) for result in decision.results)
    return Told(decision.decision, tuple(_reasons(decision)), rules, (), is_coarse=True)


def told_evidence(evidence: Sequence[DefenseEvidence], policy: ReleasePolicy) -> tuple[DefenseEvidence, ...]:
    """What defenses did; of a coarse verdict, that they did: a monitor's figures and limits are like the gate's."""
    if policy.spec.disclosure == "full":
        return tuple(evidence)
    return tuple(DefenseEvidence(name=each.name, acted=each.acted, figures={}, explanation="") for each in evidence)


def _verdict(result: RuleResult) -> RuleVerdict:
    return RuleVerdict(rule=result.rule, outcome=result.outcome, direction=_direction(result))


def _direction(result: RuleResult) -> Direction | None:
    if result.outcome == "pass":
        return None
    return _FAILED[result.bound] if result.outcome == "fail" else "not_settled"


def _reasons(decision: GateDecision) -> Iterator[str]:
    """Of each enforced rule that stopped the release its direction; what else did is not quoted, as it has figures."""
    enforced = [result for result in decision.results if result.mode == "enforce"]
    stopped = [result for result in enforced if result.outcome not in ("pass", "skipped")]
    for result in stopped:
        yield f"{result.rule}: {(_direction(result) or 'not_settled').replace('_', ' ')}."
    has_ended = any(result.outcome == "skipped" for result in decision.results)
    if has_ended:
        yield f"{_ENDED}."
    if len(decision.reasons) > len(stopped) + has_ended:
        yield f"{_OTHERWISE}."
