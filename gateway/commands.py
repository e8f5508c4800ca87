"""The commands of this package, declared without importing them."""

from __future__ import annotations

from policies.lazy_commands import Command

COMMANDS = (
    Command("serve", "gateway.cli:app", "Migrate the database and serve the API until interrupted.", "gateway"),
    Command("keys", "gateway.cli:app", "Tenants' API keys, in the database that the settings name.", "gateway"),
    Command("files", "gateway.client_cli:app", "Files of the tenant.", "gateway"),
    Command("jobs", "gateway.client_cli:app", "Fine-tuning jobs of the tenant.", "gateway"),
    Command("models", "gateway.client_cli:app", "Base models and the tenant's released adapters.", "gateway"),
    Command(
        "up",
        "gateway.up_cli:app",
        "Start everything on this machine, print a key and a snippet, and stop it all on Ctrl-C.",
        "demo",
    ),
    Command(
        "demo",
        "gateway.demo.cli:app",
        "Submit three jobs to an embedded stack and show what the gate makes of them.",
        "demo",
    ),
)
