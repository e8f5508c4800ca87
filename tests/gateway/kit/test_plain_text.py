"""What tenants are told of a worker's words."""

from __future__ import annotations

import pytest

from gateway.kit.plain_text import for_tenants
from tests.growth import LINEAR, growth


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("base model /var/lib/models/llama can't be loaded", "base model …/llama can't be loaded"),
        ("'/tmp/tunegate-attempt-x/a.jsonl': line 3", "'…/a.jsonl': line 3"),
        ("(/srv/a/b)", "(…/b)"),
        ('It failed.\nTraceback (most recent call last):\n  File "/srv/x.py", line 3', "It failed."),
        ("Traceback (most recent call last):\n  …", "No reason was given."),
        ("hf://owner/name and https://example.org/a/b", "hf://owner/name and https://example.org/a/b"),
        ("and/or 1/2, train/loss 0.5, file line 3", "and/or 1/2, train/loss 0.5, file line 3"),
    ],
)
def test_tracebacks_and_paths_are_left_out(said: str, told: str) -> None:
    assert for_tenants(said) == told


def test_any_text_takes_the_time_of_its_length() -> None:
    assert growth(lambda n: "/a" * n, for_tenants, 50_000) < LINEAR
