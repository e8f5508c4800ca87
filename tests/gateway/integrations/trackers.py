"""Reads what an export wrote, with the trackers' own readers."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from policies.contract.metrics_export import SinkName

PROJECT = "kittens"


class Found(NamedTuple):
    """A run as its tracker knows it."""

    series: dict[str, dict[int, float]]
    """Metric → step → figure; a step twice is an error."""
    evaluation: dict[str, float]
    verdict: dict[str, str]
    config: dict[str, str]


class Reader:
    """Knows where a tracker's things lie."""

    name: ClassVar[SinkName]
    packages: ClassVar[tuple[str, ...]] = ()
    digits: ClassVar[float] = 0.0
    """Relative precision that the tracker loses."""
    takes_folder: ClassVar[bool] = False

    def __init__(self, place: Path) -> None:
        self.place = place

    @property
    def arguments(self) -> list[str]:
        """Of the command line."""
        return ["--to", self.name, *(["--folder", str(self.place)] if self.takes_folder else ["--project", PROJECT])]

    @property
    def destination(self) -> str | None:
        return str(self.place) if self.takes_folder else None

    def read(self, job_id: str) -> Found:
        raise NotImplementedError


def put(series: dict[str, dict[int, float]], name: str, step: int, figure: float) -> None:
    assert step not in series.setdefault(name, {}), f"{name} is there twice at step {step}"
    series[name][step] = figure


class CsvReader(Reader):
    name = "csv"
    takes_folder = True

    def read(self, job_id: str) -> Found:
        series: dict[str, dict[int, float]] = {}
        with (self.place / f"{job_id}.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                for name in set(row) - {"step", "unix_seconds"}:
                    if row[name]:
                        put(series, name, int(row["step"]), float(row[name]))
        rest = json.loads((self.place / f"{job_id}.json").read_text())
        config = {name: str(value) for name, value in rest["config"].items()}
        return Found(series, rest["evaluation"], rest["verdict"], config)


class TensorBoardReader(Reader):
    name = "tensorboard"
    packages = ("tensorboard",)
    digits = 1e-6
    takes_folder = True

    def read(self, job_id: str) -> Found:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        events = EventAccumulator(str(self.place / job_id), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        series: dict[str, dict[int, float]] = {}
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                put(series, tag, event.step, event.value)
        evaluation = {tag: series.pop(tag) for tag in list(series) if tag.startswith("evaluation/")}
        metadata = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        hparams = HParamsPluginData.FromString(metadata).session_start_info.hparams
        return Found(
            series,
            {tag.removeprefix("evaluation/"): next(iter(values.values())) for tag, values in evaluation.items()},
            self._verdict(events),
            {name: str(value.string_value or f"{value.number_value:g}") for name, value in hparams.items()},
        )

    def _verdict(self, events: Any) -> dict[str, str]:
        if "verdict" not in events.Tags()["tensors"]:
            return {}
        (event,) = events.Tensors("verdict")
        lines = event.tensor_proto.string_val[0].decode().splitlines()
        return dict(line.removeprefix("- ").split(": ", 1) for line in lines)


class MlflowReader(Reader):
    name = "mlflow"
    packages = ("mlflow", "sqlalchemy")

    def read(self, job_id: str) -> Found:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{self.place}")
        (experiment,) = [each for each in client.search_experiments() if each.name.endswith(PROJECT)]
        (run,) = client.search_runs([experiment.experiment_id])
        series: dict[str, dict[int, float]] = {}
        for key in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, key):
                put(series, key, metric.step, metric.value)
        evaluation = {key: series.pop(key) for key in list(series) if key.startswith("evaluation/")}
        own = {name.removeprefix("tunegate."): value for name, value in run.data.tags.items() if "tunegate." in name}
        assert own.pop("job_id") == job_id
        return Found(
            series,
            {key.removeprefix("evaluation/"): next(iter(values.values())) for key, values in evaluation.items()},
            own,
            dict(run.data.params),
        )


class WandbReader(Reader):
    name = "wandb"
    packages = ("wandb",)

    def read(self, job_id: str) -> Found:
        (path,) = (self.place.parent / "wandb").glob(f"offline-run-*/run-{job_id}.wandb")
        series: dict[str, dict[int, float]] = {}
        summary: dict[str, Any] = {}
        config: dict[str, str] = {}
        for record in wandb_records(path.read_bytes()):
            if record.WhichOneof("record_type") == "history":
                row = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                for name in (name for name in row if not name.startswith("_")):
                    put(series, name, record.history.step.num, row[name])
            elif record.WhichOneof("record_type") == "run":
                assert (record.run.run_id, record.run.project) == (job_id, PROJECT)
                items = [item for item in record.run.config.update if item.key != "_wandb"]
                config = {item.key: str(json.loads(item.value_json)) for item in items}
            elif record.WhichOneof("record_type") == "summary":
                summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
        evaluation = {name.removeprefix("evaluation/"): summary[name] for name in summary if "evaluation/" in name}
        verdict = {name: summary[name] for name in summary if isinstance(summary[name], str)}
        return Found(series, evaluation, verdict, config)


def wandb_records(content: bytes) -> Iterator[Any]:
    """The records of a `.wandb` file: LevelDB's log in blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert content.startswith(b":W&B")
    block, header = 32768, struct.Struct("<IHB")
    place, parts = 7, b""
    while place + header.size <= len(content):
        if block - place % block < header.size:
            place += block - place % block
            continue
        _, length, kind = header.unpack_from(content, place)
        place += header.size
        parts += content[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


READERS: Mapping[str, type[Reader]] = {
    kind.name: kind for kind in (CsvReader, TensorBoardReader, MlflowReader, WandbReader)
}
