"""Settings of the guard model: a plain address, with a model, and answered within the lease."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings
from policies.environment import read_settings
from policies.errors import ConfigurationError
from tests.gateway.conftest import gateway_settings


def test_guard_model_needs_a_place_and_a_time_below_the_lease(tmp_path: Path) -> None:
    named = gateway_settings(tmp_path).model_dump() | {"guard_model": "guard-4b"}
    with pytest.raises(ValidationError, match="go together"):
        GatewaySettings(**named)
    with pytest.raises(ValidationError, match="below TUNEGATE_LEASE_SECONDS"):
        GatewaySettings(**(named | {"guard_url": "http://127.0.0.1:1/v1", "lease_seconds": 10.0}))


@pytest.mark.parametrize(
    "url",
    ["foo", "http://", "http://[::1", "http://x:99999/v1", "http://a b/", "file:///etc/passwd", "http://u:p@corp.org/v1",
     "http://corp.org/v1?key=abc", "http://corp.org/v1#a"],
)  # fmt: skip
def test_address_of_the_guard_model_is_a_plain_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_GUARD_URL", url)
    monkeypatch.setenv("TUNEGATE_GUARD_MODEL", "guard-4b")
    with pytest.raises(ConfigurationError, match=r"TUNEGATE_GUARD_URL: .* a credential goes into") as error:
        read_settings(GatewaySettings)
    assert url == "http://" or url not in error.value.message


def test_guard_model_without_an_address_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_GUARD_MODEL", "guard-4b")
    with pytest.raises(ConfigurationError, match="TUNEGATE_GUARD_URL and TUNEGATE_GUARD_MODEL go together"):
        read_settings(GatewaySettings)
