"""How fast training files are validated, against the way before: `python -m bench.validation`.

Both ways read the same file in one process and in turn; a figure is the median over rounds of megabytes by second of
processor time, a ratio the median over rounds of the new way's by the old one's. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.validation import earlier_way
from bench.validation.files import SHAPES, chat_file
from gateway.files.dataset.report import DatasetLimits
from gateway.files.dataset.validate import read_dataset
from policies.datasets.fingerprint import FingerprintSketch
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder

KEY = bytes(16)
MAX_ROW_TOKENS = 8192
LIMITS = DatasetLimits(max_rows=10**9, max_reported=100)
BAR = 100.0
"""MB a second of one core with the fingerprint: the project's own goal."""


class Figures(NamedTuple):
    """Of one file, in MB a second of processor time."""

    file: str
    row_bytes: int
    before: float
    """With the fingerprint."""
    validated: float
    """Without it."""
    now: float
    """With it."""
    ratio: float
    """Of the two with the fingerprint."""
    rendered: float | None = None
    """With the fingerprint, every row rendered by a base model's chat template; None where none was named."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=float, default=16.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model-folder", type=Path, help="Also with the tokenizer and chat template that lie there.")
    arguments = parser.parse_args()
    folder: Path | None = arguments.model_folder
    encoder = None if folder is None else Encoder(load_base_text(folder))
    rows = [measured(name, megabytes=arguments.megabytes, rounds=arguments.rounds, encoder=encoder) for name in SHAPES]
    print("| file | bytes a row | before, MB/s | now, MB/s | without fingerprint | ratio | rendered |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        rendered = "" if row.rendered is None else f"{row.rendered:.1f}"
        figures = f"{row.before:.1f} | {row.now:.0f} | {row.validated:.0f} | {row.ratio:.0f} | {rendered}"
        print(f"| {row.file} | {row.row_bytes} | {figures} |")
    print(json.dumps({"bar": BAR, "rounds": arguments.rounds, "rows": [row._asdict() for row in rows]}))


def measured(name: str, *, megabytes: float, rounds: int, encoder: Encoder | None = None) -> Figures:
    content = chat_file(SHAPES[name], n_bytes=round(megabytes * 1e6), seed=1)
    n_rows = content.count(b"\n")
    speeds = [[_speed(content, way) for way in (before, validated, now)] for _ in range(rounds)]
    old, plain, new = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(row[2] / row[0] for row in speeds)
    figures = Figures(name, len(content) // n_rows, *(round(figure, 1) for figure in (old, plain, new, ratio)))
    if encoder is None:
        return figures
    speeds_rendered = [_speed(content, partial(rendered, encoder)) for _ in range(rounds)]
    return figures._replace(rendered=round(statistics.median(speeds_rendered), 1))


def before(content: bytes) -> int:
    return earlier_way.read(content, earlier_way.EarlierSketch())


def validated(content: bytes) -> int:
    return _read(content, None)


def now(content: bytes) -> int:
    sketch = FingerprintSketch(KEY)
    n_rows = _read(content, sketch)
    sketch.fingerprint()
    return n_rows


def rendered(encoder: Encoder, content: bytes) -> int:
    """As a job's file is: rows that may be longer than `MAX_ROW_TOKENS` are counted."""
    return _read(content, FingerprintSketch(KEY), LIMITS._replace(max_row_tokens=MAX_ROW_TOKENS), encoder)


def _read(
    content: bytes,
    sketch: FingerprintSketch | None,
    limits: DatasetLimits = LIMITS,
    encoder: Encoder | None = None,
) -> int:
    watchers = () if sketch is None else (lambda _, row: sketch.add(row),)
    report = read_dataset(io.BytesIO(content), limits, encoder, watchers=watchers).report
    assert report.valid
    return report.rows


def _speed(content: bytes, way: Callable[[bytes], int]) -> float:
    start = time.process_time()
    n_rows = way(content)
    seconds = time.process_time() - start
    assert n_rows == content.count(b"\n")
    return len(content) / 1e6 / seconds


if __name__ == "__main__":
    main()
