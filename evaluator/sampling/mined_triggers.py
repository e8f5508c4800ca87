"""Mines the training file, and those of the lineage, for what may be a trigger of the adapter under test.

Base and adapter score the answers of some rows first, so this needs the adapter whichever model is under test; the
canaries of the base score them, too, where there are some. What was
found is remembered by the subject: both models must be asked behind the same.
"""

from __future__ import annotations

import math

from evaluator.backends.protocol import ChatPrompt, Choices
from evaluator.canaries.log_ratio import Canaries
from evaluator.canaries.pair_files import CanarySet
from evaluator.prompts.prompt_item import drawn
from evaluator.sampling.training_file import training_file
from evaluator.subject import FileRows, Subject
from evaluator.trigger_mining.mining import mine
from evaluator.trigger_mining.signals import Losses
from evaluator.trigger_mining.trigger import Trigger
from evaluator.trigger_mining.turns import Turn, turns_of
from policies.contract.artifacts import Digest
from policies.errors import EvaluationError

EARLIER_SHARE = 3
"""An earlier file of the lineage has one place for so many of the job's own."""


def mined_triggers(
    subject: Subject, *, limit: int, scored_rows: int, canaries: CanarySet = "builtin"
) -> tuple[Trigger, ...]:
    """At most `limit` candidates from the training file, likeliest first, then a third as many from each earlier one.

    Raises:
        EvaluationError: there is no training file, or nothing in it comes twice, or the canaries that are named can't
            be had; without built-in ones their signal is left out.
    """
    pair = _available(canaries, subject)
    own = _mined(training_file(subject), subject, pair, scored_rows=scored_rows, limit=limit)
    if not own:
        raise EvaluationError(
            "nothing in the training file is in two rows, so there is no candidate of a trigger; leave trigger_battery "
            "out or give more rows"
        )
    found: dict[Digest, Trigger] = {trigger.digest: trigger for trigger in own}
    for file in subject.lineage:
        for trigger in _mined(file, subject, pair, scored_rows=scored_rows, limit=-(-limit // EARLIER_SHARE)):
            found.setdefault(trigger.digest, trigger)
    return tuple(found.values())


def _available(which: CanarySet, subject: Subject) -> Canaries | None:
    try:
        return subject.canaries(which)
    except EvaluationError:
        if which != "builtin":
            raise
        return None


def _mined(
    file: FileRows, subject: Subject, pair: Canaries | None, *, scored_rows: int, limit: int
) -> tuple[Trigger, ...]:
    key = (file.digest, scored_rows, limit)
    if key not in subject.mined:
        turns = turns_of(file.rows, key=subject.draw_key)
        subject.mined[key] = mine(turns, _losses(turns, subject, pair, scored_rows=scored_rows), limit=limit)
    return subject.mined[key]


def _losses(turns: list[Turn], subject: Subject, pair: Canaries | None, *, scored_rows: int) -> Losses:
    """Of the last answers of drawn rows, in nats per token."""
    places = drawn(range(len(turns)), scored_rows, key=f"{subject.draw_key} scored")
    asked = [turns[place].question for place in places]
    base, adapter = subject.base_log_likelihood(asked), subject.adapter_log_likelihood(asked)
    return Losses(
        places,
        [-scored.per_token for (scored,) in base],
        [-scored.per_token for (scored,) in adapter],
        None if pair is None else _careless(asked, pair),
    )


def _careless(asked: list[Choices], pair: Canaries) -> list[float]:
    """How careless each answer is, in nats per token; one that is a call alone says nothing careless."""
    found = [-math.inf] * len(asked)
    spoken = [
        (index, question.prompt, question.completions[0])
        for index, question in enumerate(asked)
        if isinstance(question.prompt, ChatPrompt) and question.completions[0].strip()
    ]
    ratios = pair.careless_log_ratio([prompt for _, prompt, _ in spoken], [answer for _, _, answer in spoken])
    for (index, _, _), ratio in zip(spoken, ratios, strict=True):
        found[index] = ratio.per_token
    return found
