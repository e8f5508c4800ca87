"""One JSON object a log line on stderr, with the request id on each line that belongs to a request."""

from __future__ import annotations

import sys

import structlog


def log_as_json() -> None:
    """For the start of a process of the gateway."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # without locals, which may hold keys
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
