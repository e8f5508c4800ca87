"""The table of a decision in a terminal."""

from __future__ import annotations

from typing import get_args

import pytest
from rich.console import Console

from evaluator.cli.summary import decision_table
from evaluator.gate import decide
from policies.contract.release import GateDecision, RuleOutcome
from policies.contract.sequential import Sequential
from policies.documents.schema import Rule
from tests.evaluator.made_up_reports import MARGIN, MAX_RULE, SPEC, SUITE, decide_one, measurement, policy, report


def shown(decision: GateDecision) -> list[str]:
    """The table's lines without colour."""
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(decision_table(decision))
    return capture.get().splitlines()


@pytest.mark.parametrize("outcome", get_args(RuleOutcome))
def test_every_outcome_is_shown_as_a_word(outcome: RuleOutcome) -> None:
    decision = decide_one(MAX_RULE, measurement())
    (result,) = decision.results
    changed = decision.model_copy(update={"results": (result.model_copy(update={"outcome": outcome}),)})

    assert any(f" {outcome} " in line for line in shown(changed))


def test_rule_that_was_skipped_is_not_shown_as_an_error() -> None:
    suite = SUITE.model_copy(update={"sequential": Sequential(looks=(1.0,))})
    under = policy(MAX_RULE, Rule(id="s", metric=MARGIN, min=0.1), suite=suite)
    lines = shown(decide(under, report(under, measurement(value=0.2)), spec=SPEC))

    assert any("skipped" in line for line in lines)
    assert not any("error" in line for line in lines)
