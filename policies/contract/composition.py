"""What composes with what: a defense and a method that contradict each other are refused, with the reason.

All defenses compose with each other: penalties add up and share one reference, contexts nest, data is prepared one
after the other, and the adapter is chosen before it is projected.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract.defenses import DefenseSettings
from policies.contract.jobs import BaseModelRef, Dpo, Method
from policies.errors import ConfigurationError


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
        reason = defense.against_dpo()
        if reason is not None:
            raise ConfigurationError(
                f"defense {defense.name} does not work with method dpo: {reason}; choose method supervised, or a "
                "policy without it",
                "method.type",
            )


def require_unaligned_partner(defenses: Sequence[DefenseSettings], unaligned: BaseModelRef | None) -> None:
    """Raises where a defense needs the unaligned partner of a base model whose document names none.

    Raises:
        ConfigurationError: saying what to write where.
    """
    needing = [defense.name for defense in defenses if defense.needs_unaligned_base]
    if unaligned is None and needing:
        raise ConfigurationError(
            f"defense {needing[0]}: the base model document has no `unaligned` partner; write under spec "
            "`unaligned: {name: …, uri: …}` with the unaligned model that the base was made from (for a chat model, "
            "its pre-trained model)",
            "unaligned",
        )
