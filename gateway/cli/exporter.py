"""`tunegate exporter`: the process that exports the metrics of jobs with `integrations`."""

from __future__ import annotations

import signal
import time

import structlog
import typer
from sqlalchemy.exc import SQLAlchemyError

from policies.environment import read_settings
from policies.errors import ConfigurationError

app = typer.Typer()
log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0


@app.command()
def exporter() -> None:
    """Export the metrics of jobs with integrations until interrupted.

    Any number of them may run. What they can't reach is tried again, and nothing else waits for it.
    """
    from gateway.app import build_services
    from gateway.fine_tuning.exporting import export_due
    from gateway.http.json_log import log_as_json
    from gateway.migrate import require_migrated
    from gateway.settings import GatewaySettings
    from policies.own_memory import refuse_readers

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that an export under way is ended, too
    refuse_readers()
    settings = read_settings(GatewaySettings)
    if settings.integration_sink is None:
        raise ConfigurationError("set TUNEGATE_INTEGRATION_SINK: wandb, mlflow or tensorboard")
    log_as_json()
    require_migrated(settings.database_url)
    services = build_services(settings)
    while True:
        try:
            export_due(services)
        except SQLAlchemyError as error:
            log.error("database_unavailable", error=str(error))
        time.sleep(LOOK_SECONDS)
