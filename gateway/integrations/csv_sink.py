"""Writes a run as two files: `<job>.csv`, a line a step, and `<job>.json`, how it was trained and what was found."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.integrations.sink import Write
from policies.atomic_files import write_atomically
from policies.contract.metrics_export import Destination, MetricsRun


@contextmanager
def opened(run: MetricsRun, destination: Destination) -> Iterator[Write]:
    """Every write replaces both files."""
    folder = Path(destination.place or ".")

    def write(run: MetricsRun) -> str:
        path = folder / f"{run.job_id}.csv"
        write_atomically(path, _table(run).encode())
        rest = {"config": run.config, "evaluation": run.evaluation, "verdict": run.verdict}
        write_atomically(path.with_suffix(".json"), json.dumps(rest, indent=2).encode() + b"\n")
        return str(path)

    yield write


def _table(run: MetricsRun) -> str:
    names = sorted({name for point in run.points for name in point.values})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", "unix_seconds", *names])
    rows.writerows([point.step, point.at, *(point.values.get(name, "") for name in names)] for point in run.points)
    return text.getvalue()
