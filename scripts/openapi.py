"""Writes the snapshot of the API, `docs/openapi.json`: `python scripts/openapi.py`.

The test `tests/gateway/test_openapi.py` compares the API with it, so that no change of the API is an accident.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import SecretStr

from gateway.app import create_app
from gateway.settings import GatewaySettings

SNAPSHOT = Path(__file__).parents[1] / "docs" / "openapi.json"


def described() -> str:
    """The OpenAPI document of the gateway as it is, sorted and indented."""
    settings = GatewaySettings(
        database_url="sqlite://",
        store_url="memory://openapi",
        trainer_token=SecretStr("only-described-not-served-0123456789"),
        evaluator_token=SecretStr("only-described-not-served-9876543210"),
    )
    return json.dumps(create_app(settings).openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(described(), encoding="utf-8")
