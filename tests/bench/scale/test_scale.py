"""The bench of scale asks a real gateway on a small database, and every request is answered."""

from __future__ import annotations

import json

import pytest

from bench.scale import __main__ as scale
from bench.scale.load import REQUESTS_OF_A_CLIENT
from bench.scale.population import EVENTS_PER_JOB


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_bench_ends_with_one_json_object(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"ROUNDS": 2, "CLIENTS": 3, "WORKERS": 4, "BEAT_SECONDS": 0.2}.items():
        monkeypatch.setattr(scale, name, value)
    scale.main(["--database", database, "--jobs", "30"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["database"] == database
    figures = found["jobs"]["30"]
    assert len(figures["requests"]) == 12
    for ask in (*figures["requests"].values(), figures["heartbeats"]):
        assert 0 < ask["milliseconds"]["p50"] <= ask["milliseconds"]["p99"] <= ask["milliseconds"]["worst"]
        assert ask["cpu_milliseconds"] > 0
    assert figures["at_once"]["outcomes"] == {"200": 3 * REQUESTS_OF_A_CLIENT}
    assert figures["heartbeats"]["workers"] == 4
    assert EVENTS_PER_JOB == 12  # as in the figures that it is compared with
