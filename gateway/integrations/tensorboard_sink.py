"""Writes a run as TensorBoard's event files, below `<folder>/<job>`: scalars by step, and the verdict as text.

What lies there already is read first, and only what is missing is added. TensorBoard keeps numbers as float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from gateway.integrations.sink import Write
from policies.contract.metrics_export import Destination, MetricsRun

VERDICT = "verdict"
ALL = {"scalars": 0, "tensors": 0}
"""How many events of a kind are kept by TensorBoard's reader; 0: all."""


@contextmanager
def opened(run: MetricsRun, destination: Destination) -> Iterator[Write]:
    """Every write makes a file of its own, if it has anything new."""
    folder = Path(destination.place or "runs") / run.job_id
    there = _steps_in(folder)

    def write(run: MetricsRun) -> str:
        new = [(event, tag) for event, tag in _events(run) if event.step not in there.get(tag, ())]
        if new:
            writer = EventFileWriter(str(folder))
            for event, tag in new:
                writer.add_event(event)
                there.setdefault(tag, set()).add(event.step)
            writer.close()
        return str(folder)

    yield write


def _events(run: MetricsRun) -> Iterator[tuple[Event, str]]:
    """With the tag that each of them is found by."""
    hparams = hparams_pb(run.config, trial_id=run.job_id, start_time_secs=run.started_at)
    yield Event(wall_time=run.started_at, summary=hparams), hparams.value[0].tag
    for point in run.points:
        yield from _scalars(point.values, point.step, point.at)
    if run.ended_at is not None:
        evaluation = {f"evaluation/{name}": value for name, value in run.evaluation.items()}
        yield from _scalars(evaluation, run.last_step, run.ended_at)
        lines = [f"- {name}: {value}" for name, value in run.verdict.items()]
        text = make_tensor_proto(np.array("\n".join(lines).encode(), dtype=object))
        metadata = create_summary_metadata(display_name=VERDICT, description="")
        value = Summary.Value(tag=VERDICT, metadata=metadata, tensor=text)
        yield Event(wall_time=run.ended_at, step=run.last_step, summary=Summary(value=[value])), VERDICT


def _scalars(values: Mapping[str, float], step: int, at: int) -> Iterator[tuple[Event, str]]:
    for name, value in values.items():
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        yield Event(wall_time=at, step=step, summary=summary), name


def _steps_in(folder: Path) -> dict[str, set[int]]:
    """Steps by tag."""
    if not folder.is_dir():
        return {}
    found = EventAccumulator(str(folder), size_guidance=ALL)
    found.Reload()
    scalars = {tag: {event.step for event in found.Scalars(tag)} for tag in found.Tags()["scalars"]}
    return scalars | {tag: {event.step for event in found.Tensors(tag)} for tag in found.Tags()["tensors"]}
