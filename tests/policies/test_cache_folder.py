"""One cache folder, wherever it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.cache_folder import cache_folder
from policies.worker.settings import worker_settings

REPOSITORY = Path(__file__).parents[2]
VARIABLES = ("TUNEGATE_CACHE_DIR", "XDG_CACHE_HOME")


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        (None, None, "/home/me/.cache/tunegate"),
        (None, "/var/cache/me", "/var/cache/me/tunegate"),
        (None, "", "/home/me/.cache/tunegate"),
        (None, "relative", "/home/me/.cache/tunegate"),
        ("", "/var/cache/me", "/var/cache/me/tunegate"),
        ("/srv/tunegate", "/var/cache/me", "/srv/tunegate"),
    ],
)
def test_own_setting_comes_before_the_shared_one_before_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, own: str | None, shared: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in zip(VARIABLES, (own, shared), strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_workers_keep_theirs_where_the_commands_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_WORKER_TOKEN", "w" * 32)
    monkeypatch.delenv("TUNEGATE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert worker_settings().cache_dir == cache_folder() == Path("/var/cache/me/tunegate")


def test_nothing_else_names_a_cache_folder() -> None:
    packages = ("policies", "gateway", "trainer", "evaluator", "bench")
    sources = [path for package in packages for path in (REPOSITORY / package).rglob("*.py")]
    assert len(sources) > 250
    named = {path.name for path in sources if any(word in path.read_text() for word in ('".cache"', "XDG_CACHE_HOME"))}
    assert named == {"cache_folder.py"}
