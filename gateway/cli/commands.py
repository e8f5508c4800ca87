"""The commands of this package, declared without importing them."""

from __future__ import annotations

from policies.cli.lazy_commands import Command

COMMANDS = (
    Command("serve", "gateway.cli.serve:app", "Migrate the database and serve the API until interrupted.", "gateway"),
    Command("keys", "gateway.cli.serve:app", "Tenants' API keys, in the database that the settings name.", "gateway"),
    Command("backup", "gateway.cli.backup:app", "Database and artifacts, into a folder and back.", "gateway"),
    Command(
        "upgrade",
        "gateway.cli.upgrade:app",
        "Back up, bring the database to this version, check it, and say how to go back.",
        "gateway",
    ),
    Command(
        "exporter",
        "gateway.cli.exporter:app",
        "Export the metrics of jobs with integrations until interrupted.",
        "gateway",
    ),
    Command("files", "gateway.cli.files:app", "Files of the tenant."),
    Command(
        "import",
        "gateway.cli.openai_import.command:app",
        "Files and jobs that another service exported.",
        "gateway",
    ),
    Command("jobs", "gateway.cli.export:app", "Fine-tuning jobs of the tenant.", "gateway"),
    Command("models", "gateway.cli.client:app", "Base models and the tenant's released adapters.", "gateway"),
    Command(
        "up",
        "gateway.cli.up:app",
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
