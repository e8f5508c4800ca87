"""The table of the state machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.jobs.states import CLAIMABLE, RUNNING, TERMINAL, TRANSITIONS, TransitionError, advance, public_status
from policies.contract.jobs import Phase

OPENAI_STATUSES = {"validating_files", "queued", "running", "succeeded", "failed", "cancelled"}


@dataclass
class Row:
    phase: str
    phase_since: float = 1.0
    finished_at: int | None = None


def reachable(start: Phase) -> set[Phase]:
    seen, waiting = {start}, [start]
    while waiting:
        fresh = TRANSITIONS[waiting.pop()] - seen
        seen |= fresh
        waiting.extend(fresh)
    return seen


def test_every_phase_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Phase)


ALLOWED = """
validating -> queued failed cancelled
queued -> training paused failed cancelled
training -> awaiting_evaluation queued pausing cancelling failed
awaiting_evaluation -> evaluating paused failed cancelled
evaluating -> awaiting_evaluation awaiting_confirmation pausing cancelling failed released rejected awaiting_review
awaiting_confirmation -> confirming paused failed cancelled
confirming -> awaiting_confirmation pausing cancelling failed released awaiting_review
awaiting_review -> released rejected cancelled
pausing -> paused cancelling training evaluating confirming failed released rejected awaiting_review
paused -> queued awaiting_evaluation awaiting_confirmation cancelled
cancelling -> cancelled
released ->
rejected ->
failed ->
cancelled ->
"""


def test_no_transition_is_allowed_but_these() -> None:
    """Written a second time, so that nobody adds or drops one by accident."""
    rows = (line.split("->") for line in ALLOWED.split("\n") if line)
    assert {Phase(left.strip()): {Phase(name) for name in to.split()} for left, to in rows} == TRANSITIONS


def test_phases_are_grouped_as_the_table_says() -> None:
    assert {phase for phase, following in TRANSITIONS.items() if not following} == TERMINAL
    assert {Phase.TRAINING, Phase.EVALUATING, Phase.CONFIRMING, Phase.PAUSING, Phase.CANCELLING} == RUNNING
    assert CLAIMABLE == {
        Phase.QUEUED: Phase.TRAINING,
        Phase.AWAITING_EVALUATION: Phase.EVALUATING,
        Phase.AWAITING_CONFIRMATION: Phase.CONFIRMING,
    }


def test_forbidden_transition_is_told_and_changes_nothing() -> None:
    row = Row("queued")
    with pytest.raises(TransitionError) as error:
        advance(row, Phase.RELEASED, 9.0)
    assert str(error.value) == "a job cannot go from queued to released"
    assert row == Row("queued")


def test_every_phase_can_be_reached_from_the_first() -> None:
    assert reachable(Phase.VALIDATING) == set(Phase)


@pytest.mark.parametrize("phase", sorted(set(Phase) - TERMINAL))
def test_a_job_that_is_not_over_can_always_be_cancelled(phase: Phase) -> None:
    assert Phase.CANCELLED in reachable(phase)


@pytest.mark.parametrize("phase", sorted(TERMINAL))
@pytest.mark.parametrize("target", list(Phase))
def test_terminal_phases_absorb(phase: Phase, target: Phase) -> None:
    row = Row(phase.value, finished_at=5)
    with pytest.raises(TransitionError):
        advance(row, target, 9.0)
    assert row == Row(phase.value, finished_at=5)


MAY_BE_RELEASED = {Phase.EVALUATING, Phase.CONFIRMING, Phase.AWAITING_REVIEW, Phase.PAUSING}


@pytest.mark.parametrize("phase", sorted(set(Phase) - MAY_BE_RELEASED))
def test_nothing_is_released_but_after_an_evaluation(phase: Phase) -> None:
    """PAUSING counts: a verdict that was under way when the pause came stands."""
    assert Phase.RELEASED not in TRANSITIONS[phase]


def test_a_held_job_is_cancelled_only_by_way_of_cancelling() -> None:
    for phase in RUNNING - {Phase.CANCELLING}:
        assert Phase.CANCELLED not in TRANSITIONS[phase]
        assert Phase.CANCELLING in TRANSITIONS[phase]


def test_a_claim_is_an_allowed_transition_into_a_held_phase() -> None:
    for waits, runs in CLAIMABLE.items():
        assert runs in TRANSITIONS[waits]
        assert runs in RUNNING


def test_advance_stamps_the_time() -> None:
    row = Row("queued")
    advance(row, Phase.TRAINING, 12.5)
    assert row == Row("training", 12.5)


def test_advance_into_a_terminal_phase_ends_the_job() -> None:
    row = Row("training")
    advance(row, Phase.FAILED, 12.5)
    assert row == Row("failed", 12.5, finished_at=12)


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.PAUSED}))
def test_public_statuses_are_openais(phase: Phase) -> None:
    assert public_status(phase) in OPENAI_STATUSES


def test_a_paused_job_shows_paused() -> None:
    assert public_status("paused") == "paused"
