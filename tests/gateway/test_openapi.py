"""No change of the API is an accident: it is described by a snapshot, which `make openapi` writes anew."""

from __future__ import annotations

from pathlib import Path

from scripts.openapi import SNAPSHOT, described


def test_the_api_is_the_one_of_the_snapshot() -> None:
    assert Path(__file__).parents[2] / "docs" / "openapi.json" == SNAPSHOT
    message = "the API differs from docs/openapi.json; if that is meant, run `make openapi` and commit the file"
    assert described() == SNAPSHOT.read_text(encoding="utf-8"), message
