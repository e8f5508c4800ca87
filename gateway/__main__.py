"""`python -m gateway serve`: the gateway's commands without those of other packages."""

from __future__ import annotations

import sys

from gateway.cli.serve import app
from policies.cli.main import run

sys.exit(run(sys.argv[1:], app))
