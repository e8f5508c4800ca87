"""Exit codes of every `tunegate` command; scripts rely on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.errors import ConfigurationError, DatasetError, IntegrityError, TunegateError

if TYPE_CHECKING:
    from policies.contract.release import Decision  # slow to import, and every command line starts with this module

OK = 0
USAGE = 1
"""A wrong command line, setting, policy or dataset."""
RUNTIME = 2
REJECTED = 3
INCONCLUSIVE = 4
"""The gate could not decide, or a person has to."""
INTEGRITY = 6
INTERRUPTED = 130
"""Ctrl-C, as shells report it."""

_OF_DECISION = {"release": OK, "reject": REJECTED, "inconclusive": INCONCLUSIVE}


def of_error(error: TunegateError) -> int:
    if isinstance(error, ConfigurationError | DatasetError):
        return USAGE
    return INTEGRITY if isinstance(error, IntegrityError) else RUNTIME


def of_decision(decision: Decision) -> int:
    return _OF_DECISION[decision.value]
