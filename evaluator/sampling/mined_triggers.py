"""Mines the training file, and those of the lineage, for what may be a trigger of the adapter under test.

Base and adapter score the answers of some rows first, so this needs the adapter whichever model is under test. What was
found is remembered by the subject: both models must be asked behind the same.
"""

from __future__ import annotations

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


def mined_triggers(subject: Subject, *, limit: int, scored_rows: int) -> tuple[Trigger, ...]:
    """At most `limit` candidates from the training file, likeliest first, then a third as many from each earlier one.

    Raises:
        EvaluationError: there is no training file, or nothing in it comes twice.
    """
    own = _mined(training_file(subject), subject, scored_rows=scored_rows, limit=limit)
    if not own:
        raise EvaluationError(
            "nothing in the training file is in two rows, so there is no candidate of a trigger; leave trigger_battery "
            "out or give more rows"
        )
    found: dict[Digest, Trigger] = {trigger.digest: trigger for trigger in own}
    for file in subject.lineage:
        for trigger in _mined(file, subject, scored_rows=scored_rows, limit=-(-limit // EARLIER_SHARE)):
            found.setdefault(trigger.digest, trigger)
    return tuple(found.values())


def _mined(file: FileRows, subject: Subject, *, scored_rows: int, limit: int) -> tuple[Trigger, ...]:
    key = (file.digest, scored_rows, limit)
    if key not in subject.mined:
        turns = turns_of(file.rows, key=subject.draw_key)
        subject.mined[key] = mine(turns, _losses(turns, subject, scored_rows), limit=limit)
    return subject.mined[key]


def _losses(turns: list[Turn], subject: Subject, scored_rows: int) -> Losses:
    """Of the last answers of drawn rows, in nats per token."""
    places = drawn(range(len(turns)), scored_rows, key=f"{subject.draw_key} scored")
    asked = [turns[place].question for place in places]
    base, adapter = subject.base_log_likelihood(asked), subject.adapter_log_likelihood(asked)
    return Losses(places, [-scored.per_token for (scored,) in base], [-scored.per_token for (scored,) in adapter])
