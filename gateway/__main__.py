"""`python -m gateway serve`: the gateway's commands without those of other packages."""

from __future__ import annotations

import sys

from gateway.cli.commands import COMMANDS
from policies.cli.main import build_app, run

sys.exit(run(sys.argv[1:], build_app(COMMANDS)))
