"""Settings of a defense → the defense; the one place that a new defense is entered in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from policies.contract.defenses import DefenseSettings, KlPenalty, SafeDataInterleaving
from trainer.defense import Defense, DefenseContext
from trainer.defenses.kl_penalty import KlPenaltyDefense
from trainer.defenses.safe_data_interleaving import SafeDataInterleavingDefense

_BUILDERS: dict[type, Callable[[Any, DefenseContext], Defense]] = {  # Any: each builder takes the settings of its key
    KlPenalty: KlPenaltyDefense.build,
    SafeDataInterleaving: SafeDataInterleavingDefense.build,
}


def build_defenses(settings: Sequence[DefenseSettings], context: DefenseContext) -> list[Defense]:
    """The defenses of a job, in the order of its policy."""
    return [_BUILDERS[type(each)](each, context) for each in settings]
