"""What a hub model is called, and at which revision: one reading for evaluator and command line."""

from __future__ import annotations

import pytest

from policies.documents.base_models import hub_repository
from policies.errors import ConfigurationError


@pytest.mark.parametrize(
    ("location", "revision", "meant"),
    [
        ("owner/name", None, None),
        ("owner/name", "v1", "v1"),
        ("owner/name@v1", None, "v1"),
        ("owner/name@v1", "v1", "v1"),
    ],
)
def test_a_revision_stands_behind_the_name_or_apart(location: str, revision: str | None, meant: str | None) -> None:
    assert hub_repository(location, revision) == ("owner/name", meant)


def test_two_revisions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="name the revision once"):
        hub_repository("owner/name@v1", "v2")
