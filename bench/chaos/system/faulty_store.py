"""A store that fails when it is told to: `faulty:///folder` is a folder behind fsspec, as `file:///folder` is.

fsspec finds it by the metadata of a package that lies on PYTHONPATH (`plug_in`), so every process of the product reads
and writes through it by its URL alone. What it does wrong stands in a file that the study writes (`Weather`).
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel

PROTOCOL = "faulty"
VARIABLE = "CHAOS_STORE_WEATHER"
"""Names the file; not one of the product's own variables, so children have it, too."""


class Weather(BaseModel):
    """What the store does wrong; by default nothing."""

    read_error: int | None = None
    """The `errno` of everything that reads."""
    write_error: int | None = None
    delay_seconds: float = 0.0
    """Before a file is opened."""

    def put(self, path: Path) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(self.model_dump_json())
        fresh.replace(path)


class FaultyFileSystem(LocalFileSystem):
    """A folder in bad weather."""

    protocol = PROTOCOL

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # Any: fsspec's own
        if isinstance(path, str):
            return LocalFileSystem._strip_protocol(path.removeprefix(f"{PROTOCOL}://"))
        return [cls._strip_protocol(item) for item in path]

    def _open(self, path: str, mode: str = "rb", **arguments: Any) -> Any:  # Any: fsspec's own
        weather = _weather()
        time.sleep(weather.delay_seconds)
        _raise(weather.read_error if mode == "rb" else weather.write_error, path)
        return super()._open(path, mode, **arguments)

    def info(self, path: str, **arguments: Any) -> Any:  # Any: fsspec's own
        _raise(_weather().read_error, path)
        return super().info(path, **arguments)

    def mv(self, path1: str, path2: str, **arguments: Any) -> Any:  # Any: fsspec's own
        _raise(_weather().write_error, path2)
        return super().mv(path1, path2, **arguments)


def _weather() -> Weather:
    return Weather.model_validate_json(Path(os.environ[VARIABLE]).read_bytes())


def _raise(number: int | None, path: str) -> None:
    if number is not None:
        raise OSError(number, os.strerror(number), path)


BAD_READS = Weather(read_error=errno.EIO)
BAD_WRITES = Weather(write_error=errno.EIO)
NO_ROOM = Weather(write_error=errno.ENOSPC)
SLOW = Weather(delay_seconds=0.3)


def plug_in(folder: Path) -> dict[str, str]:
    """Put the package's metadata into `folder`; gives the variables by which a process finds it."""
    package = folder / "tunegate_faulty_store-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: tunegate-faulty-store\nVersion: 1\n")
    (package / "entry_points.txt").write_text(f"[fsspec.specs]\n{PROTOCOL} = {__name__}:FaultyFileSystem\n")
    weather = folder / "weather.json"
    Weather().put(weather)
    return {"PYTHONPATH": str(folder), VARIABLE: str(weather)}
