"""The commands of this package."""

from __future__ import annotations

from policies.cli.lazy_commands import Command

COMMANDS = (Command("policy", "policies.cli.policy:app", "Check, show and describe policy documents."),)
