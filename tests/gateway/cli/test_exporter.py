"""`tunegate exporter` as a process: it works through what is due, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli.exporter import exporter
from gateway.tables.integrations import MetricsExport
from policies.cli import exit_codes
from policies.errors import ConfigurationError
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, submit_queued


def test_a_deployment_without_a_sink_has_nothing_to_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_INTEGRATION_SINK", raising=False)
    with pytest.raises(ConfigurationError, match="TUNEGATE_INTEGRATION_SINK"):
        exporter()


def test_what_is_due_is_taken_up_until_the_process_is_told_to_end(live_gateway: LiveGateway, tmp_path: Path) -> None:
    """Nobody has a tracker here, so the export fails, and its row says so."""
    job_id = submit_queued(live_gateway, live_gateway.client(live_gateway.tenant_key()))
    with closing(HandWorker(live_gateway)) as worker:
        worker.must_claim(job_id)
    database = live_gateway.services.database
    with database.transaction() as session:
        session.add(MetricsExport(job_id=job_id, due_at=0.0))
    settings = live_gateway.services.settings
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TUNEGATE_")},
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TUNEGATE_DATABASE_URL": settings.database_url,
        "TUNEGATE_STORE_URL": settings.store_url,
        "TUNEGATE_INTEGRATION_SINK": "tensorboard",
        "TUNEGATE_INTEGRATION_TARGET": str(tmp_path / "a-file"),
    }
    (tmp_path / "a-file").write_text("where a folder should be")
    command = [sys.executable, "-c", "from policies.cli.main import main; main()", "exporter"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        failures = 0
        while process.poll() is None and not failures:
            time.sleep(0.2)
            with database.reading() as session:
                failures = session.get_one(MetricsExport, job_id).failures
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate()
    assert failures == 1, errors
    assert process.returncode == exit_codes.INTERRUPTED
    assert b"metrics_export_failed" in output + errors
