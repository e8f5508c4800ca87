"""`python -m gateway serve`: the gateway's commands without those of other packages."""

from __future__ import annotations

import sys

from gateway.cli import app
from policies.main import run

sys.exit(run(sys.argv[1:], app))
