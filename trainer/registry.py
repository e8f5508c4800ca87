"""Settings of a defense → the defense; the one place that a new defense is entered in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from policies.contract.defenses import (
    DefenseSettings,
    EarlyStoppingOnSafety,
    Inoculation,
    KlPenalty,
    Ldifs,
    PreventativeSteering,
    SafeDataInterleaving,
    SafeLora,
    TokenConstrainedSft,
)
from trainer.defense import Defense, DefenseContext
from trainer.defenses.early_stopping_on_safety import EarlyStoppingOnSafetyDefense
from trainer.defenses.inoculation import InoculationDefense
from trainer.defenses.kl_penalty import KlPenaltyDefense
from trainer.defenses.ldifs import LdifsDefense
from trainer.defenses.preventative_steering.defense import PreventativeSteeringDefense
from trainer.defenses.safe_data_interleaving.defense import SafeDataInterleavingDefense
from trainer.defenses.safe_lora.defense import SafeLoraDefense
from trainer.defenses.token_constrained_sft import TokenConstrainedSftDefense

_BUILDERS: dict[type, Callable[[Any, DefenseContext], Defense]] = {  # Any: each builder takes the settings of its key
    KlPenalty: KlPenaltyDefense.build,
    SafeDataInterleaving: SafeDataInterleavingDefense.build,
    Ldifs: LdifsDefense.build,
    SafeLora: SafeLoraDefense.build,
    PreventativeSteering: PreventativeSteeringDefense.build,
    Inoculation: InoculationDefense.build,
    TokenConstrainedSft: TokenConstrainedSftDefense.build,
    EarlyStoppingOnSafety: EarlyStoppingOnSafetyDefense.build,
}


def build_defenses(settings: Sequence[DefenseSettings], context: DefenseContext) -> list[Defense]:
    """The defenses of a job, in the order of its policy."""
    return [_BUILDERS[type(each)](each, context) for each in settings]
