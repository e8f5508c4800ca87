"""`python -m gateway serve`: the gateway's commands without the root command."""

from __future__ import annotations

from gateway.cli import app

app()
