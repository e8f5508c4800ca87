"""The state machine of a job: a table of allowed transitions, and the public status that each phase shows.

validating ─► queued ─► training ─► awaiting_evaluation ─► evaluating ─► released | rejected | failed
                ▲          │                ▲                  │              ▲
                └─ lost ───┤                └───── lost ───────┤        awaiting_review
                           └── pausing ─► paused ─► (resume)   ┘
Where the policy demands two evaluators, a release is confirmed first:
evaluating ─► awaiting_confirmation ─► confirming ─► released | awaiting_review | failed
A phase that holds a process (`RUNNING`) is left only when that process is gone: by its own completion, or because its
lease ran out. `failed` can be reached from wherever work is done, and from where a job waits for a worker and can't be
worked on; `cancelled` from wherever no process is left.
"""

from __future__ import annotations

from typing import Protocol

from policies.contract.jobs import Phase
from policies.errors import TunegateError


class TransitionError(TunegateError, RuntimeError):
    """Code asked for a transition that the table forbids; a request that can't be met is told so before."""

    code = "impossible_transition"


TERMINAL = frozenset(phase for phase in Phase if phase.is_terminal)

RUNNING = frozenset({Phase.TRAINING, Phase.EVALUATING, Phase.CONFIRMING, Phase.PAUSING, Phase.CANCELLING})
"""A worker's process holds the job under a lease."""

CLAIMABLE = {
    Phase.QUEUED: Phase.TRAINING,
    Phase.AWAITING_EVALUATION: Phase.EVALUATING,
    Phase.AWAITING_CONFIRMATION: Phase.CONFIRMING,
}
"""Waiting for a worker → what a claim makes of it."""

_VERDICTS = {Phase.RELEASED, Phase.REJECTED, Phase.AWAITING_REVIEW}

TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.VALIDATING: frozenset({Phase.QUEUED, Phase.FAILED, Phase.CANCELLED}),
    Phase.QUEUED: frozenset({Phase.TRAINING, Phase.PAUSED, Phase.FAILED, Phase.CANCELLED}),
    Phase.TRAINING: frozenset(
        {Phase.AWAITING_EVALUATION, Phase.QUEUED, Phase.PAUSING, Phase.CANCELLING, Phase.FAILED},
    ),
    Phase.AWAITING_EVALUATION: frozenset({Phase.EVALUATING, Phase.PAUSED, Phase.FAILED, Phase.CANCELLED}),
    Phase.EVALUATING: frozenset(
        {
            Phase.AWAITING_EVALUATION,
            Phase.AWAITING_CONFIRMATION,
            Phase.PAUSING,
            Phase.CANCELLING,
            Phase.FAILED,
            *_VERDICTS,
        },
    ),
    Phase.AWAITING_CONFIRMATION: frozenset({Phase.CONFIRMING, Phase.PAUSED, Phase.FAILED, Phase.CANCELLED}),
    # Two evaluations that differ reject nothing: one of them is wrong, and which is not known.
    Phase.CONFIRMING: frozenset(
        {
            Phase.AWAITING_CONFIRMATION,
            Phase.PAUSING,
            Phase.CANCELLING,
            Phase.FAILED,
            Phase.RELEASED,
            Phase.AWAITING_REVIEW,
        },
    ),
    Phase.AWAITING_REVIEW: frozenset({Phase.RELEASED, Phase.REJECTED, Phase.CANCELLED}),
    # A resume takes a pause back; a verdict or failure that was under way when the pause came stands.
    Phase.PAUSING: frozenset(
        {
            Phase.PAUSED,
            Phase.CANCELLING,
            Phase.TRAINING,
            Phase.EVALUATING,
            Phase.CONFIRMING,
            Phase.FAILED,
            *_VERDICTS,
        },
    ),
    Phase.PAUSED: frozenset({Phase.QUEUED, Phase.AWAITING_EVALUATION, Phase.AWAITING_CONFIRMATION, Phase.CANCELLED}),
    Phase.CANCELLING: frozenset({Phase.CANCELLED}),
    **dict.fromkeys(TERMINAL, frozenset()),
}

_STATUS = {
    Phase.VALIDATING: "validating_files",
    Phase.QUEUED: "queued",
    Phase.TRAINING: "running",
    Phase.AWAITING_EVALUATION: "running",
    Phase.EVALUATING: "running",
    Phase.AWAITING_CONFIRMATION: "running",
    Phase.CONFIRMING: "running",
    Phase.AWAITING_REVIEW: "running",
    Phase.PAUSING: "running",
    Phase.PAUSED: "paused",
    Phase.CANCELLING: "running",
    Phase.RELEASED: "succeeded",
    Phase.REJECTED: "failed",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
}


class HasPhase(Protocol):
    """What the state machine moves: a row of the table `jobs`."""

    phase: str
    phase_since: float
    finished_at: int | None


def advance(job: HasPhase, phase: Phase, now: float) -> None:
    """Move `job` to `phase`, or raise `TransitionError` and leave it as it was."""
    if phase not in TRANSITIONS[Phase(job.phase)]:
        raise TransitionError(f"a job cannot go from {job.phase} to {phase}")
    job.phase = phase.value
    job.phase_since = now
    if phase in TERMINAL:
        job.finished_at = int(now)


def public_status(phase: str) -> str:
    """The status of OpenAI's job object; `paused` is the one that occurs in its examples only."""
    return _STATUS[Phase(phase)]
