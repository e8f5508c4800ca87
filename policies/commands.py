"""The commands of this package."""

from __future__ import annotations

from policies.lazy_commands import Command

COMMANDS = (Command("policy", "policies.cli:app", "Check, show and describe policy documents."),)
