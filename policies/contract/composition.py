"""What composes with what: the pairs of defense and method that contradict each other, with the reason.

All defenses compose with each other: penalties add up and share one reference, contexts nest, data is prepared one
after the other, and the adapter is chosen before it is projected.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract.defenses import DefenseSettings, KlPenalty
from policies.contract.jobs import BaseModelRef, Dpo, Method
from policies.errors import ConfigurationError

REFUSED_BY_DPO = {
    "safe_data_interleaving": "its rows have one answer, and preferences need two",
    "token_constrained_sft": "it weighs the loss of supervised tokens, and preferences have none",
}


def require_composable(defenses: Sequence[DefenseSettings], method: Method) -> None:
    """Raises where a defense can't work with the method or is there twice.

    Raises:
        ConfigurationError: naming defense, reason and fix.
    """
    names = [defense.name for defense in defenses]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"a defense is listed twice in {names}; list each once", "defenses")
    if not isinstance(method, Dpo):
        return
    for defense in defenses:
        reason = REFUSED_BY_DPO.get(defense.name)
        if isinstance(defense, KlPenalty) and defense.estimator == "sampled":
            reason = "its sampled estimator is defined on supervised tokens; write estimator: full"
        if reason is not None:
            raise ConfigurationError(
                f"defense {defense.name} does not work with method dpo: {reason}; choose method supervised, or a "
                "policy without it",
                "method.type",
            )


def require_unaligned_partner(defenses: Sequence[DefenseSettings], unaligned: BaseModelRef | None) -> None:
    """Raises where `safe_lora` is to project with a base model whose document names no `unaligned` one.

    Raises:
        ConfigurationError: saying what to write where.
    """
    if unaligned is None and any(defense.name == "safe_lora" for defense in defenses):
        raise ConfigurationError(
            "defense safe_lora: the base model document has no `unaligned` partner; write under spec "
            "`unaligned: {name: …, uri: …}` with the model that the base was aligned from (of a chat model, its "
            "pre-trained model)",
            "unaligned",
        )
