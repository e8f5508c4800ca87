"""Which experiment trackers there are, and how a run gets into one of them.

A sink is a module with `opened(run, destination)`: a context that gives a function which writes the run as it now is,
as often as it is called, and says where. The run is found again by the job's id, so that a second export goes on where
the first one stopped.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from typing import NamedTuple

from gateway.errors import ExportFailed
from policies.cache_folder import cache_folder
from policies.contract.metrics_export import Destination, MetricsRun, SinkName
from policies.errors import ConfigurationError

Write = Callable[[MetricsRun], str]
Opened = Callable[[MetricsRun, Destination], AbstractContextManager[Write]]


class Sink(NamedTuple):
    """A tracker's module, and the extra of this distribution that brings its client library."""

    module: str
    extra: str | None


SINKS: Mapping[SinkName, Sink] = {
    "wandb": Sink("gateway.integrations.wandb_sink", "wandb"),
    "mlflow": Sink("gateway.integrations.mlflow_sink", "mlflow"),
    "tensorboard": Sink("gateway.integrations.tensorboard_sink", "tensorboard"),
    "csv": Sink("gateway.integrations.csv_sink", None),
}


@contextmanager
def opened(sink: SinkName, run: MetricsRun, destination: Destination) -> Iterator[Write]:
    """The sink's function that writes, held by one process of this user at a time.

    Raises:
        ConfigurationError: the tracker's client library is not installed.
        ExportFailed: the tracker does not take the run, or another export of the job is under way.
    """
    open_sink = _imported(sink)
    with _alone(sink, run.job_id), ExitStack() as stack:
        with _in_words(sink):
            write = stack.enter_context(open_sink(run, destination))

        def write_or_say_why(run: MetricsRun) -> str:
            with _in_words(sink):
                return write(run)

        yield write_or_say_why
        with _in_words(sink):
            stack.close()


@contextmanager
def _in_words(sink: SinkName) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of client libraries, which have no common root
        lines = str(error).strip().splitlines() or [""]
        words = f"{sink} did not take the run: {lines[0][:500]} ({type(error).__name__})"
        raise ExportFailed(words) from error


def _imported(sink: SinkName) -> Opened:
    name, extra = SINKS[sink]
    try:
        found: Opened = import_module(name).opened
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        message = f"{sink} needs the Python package {error.name}: pip install 'tunegate[{extra}]'"
        raise ConfigurationError(message, "to") from error
    return found


@contextmanager
def _alone(sink: SinkName, job_id: str) -> Iterator[None]:
    folder = cache_folder() / "exports"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{sink}-{job_id}.lock").open("w") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another process exports {job_id} to {sink}; wait until it is done."
            raise ExportFailed(message, code="export_under_way") from error
        yield
