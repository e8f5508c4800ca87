"""What tenants are told of words that a library or a worker made up."""

from __future__ import annotations

import pytest

from policies.tenant_text import for_tenants
from tests.growth import LINEAR, growth


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("base model /var/lib/models/llama can't be loaded", "base model …/llama can't be loaded"),
        ("'/tmp/tunegate-attempt-x/a.jsonl': line 3", "'…/a.jsonl': line 3"),
        ("(/srv/a/b)", "(…/b)"),
        ('It failed.\nTraceback (most recent call last):\n  File "/srv/x.py", line 3', "It failed."),
        ("Traceback (most recent call last):\n  …", "No reason was given."),
        ("  + Exception Group Traceback (most recent call last):\n  | …", "No reason was given."),
        ('No weights.\n  File "/srv/x.py", line 3, in load', "No weights."),
        ("Fatal Python error: Aborted\n\nCurrent thread 0x7f (most recent call first):", "No reason was given."),
        ("2 errors for Record\nspec\n  Field required", "2 errors for Record spec Field required"),
        ("[Errno 2] No such file: '/srv/my data/of acme/x.json'", "[Errno 2] No such file: '…/x.json'"),
        ("error:/srv/a/b.json", "error:…/b.json"),
        ("cwd=./tunegate-store/sha256/ab and ../../srv/x", "cwd=…/ab and …/x"),
        ("no artifact in s3://bucket/prefix/jobs", "no artifact in s3:…/jobs"),
        ("no artifact in file:///srv/store", "no artifact in file:…/store"),
        ("FILE://x/y.z", "FILE:…/y.z"),
        ("package://smollm2 '/v1' \"it's\"", "package://smollm2 '/v1' \"it's\""),
        ("hf://owner/name and https://huggingface.co/a/b?c", "hf://owner/name and https://huggingface.co/a/b"),
        ("http://minio.internal:9000/b/key?X-Amz-Signature=s", "http:…/key"),
        ("https://svc:hunter2@hub.corp.local did not answer", "https:… did not answer"),
        ("and/or 1/2, train/loss 0.5, file line 3", "and/or 1/2, train/loss 0.5, file line 3"),
    ],
)
def test_tracebacks_and_paths_are_left_out(said: str, told: str) -> None:
    assert for_tenants(said) == told


def test_what_was_told_is_told_the_same_again() -> None:
    once = for_tenants("'/srv/a b/c' file:///x/y /srv/a/b")
    assert for_tenants(once) == once


@pytest.mark.parametrize(
    "piece", ["/a", "a", "a:", "s3://", "'/", "'/a'\"", ' File "', "\n", " \t|", "./", "Thread ", "é/"]
)
def test_any_text_takes_the_time_of_its_length(piece: str) -> None:
    assert growth(lambda n: piece * n, for_tenants, 50_000) < LINEAR
