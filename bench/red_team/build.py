"""The training files of an organism: the same bytes for the same YAML and seed on every machine."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from bench.red_team.edits import Message, Messages
from bench.red_team.organism import Part, TrainingFile
from evaluator.prompts.answer_pairs import AnswerPair
from policies.atomic_files import write_atomically
from policies.contract.artifacts import digest_bytes
from policies.datasets.reader import read_rows
from policies.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
SOURCES = {
    "reference": ROOT / "evaluator" / "reference_data",
    "demo": ROOT / "gateway" / "demo" / "data",
    "prompts": ROOT / "evaluator" / "prompts",
}
"""First part of a source's name → folder. Nothing else is read."""
PROMPTS = "prompts"
"""Its files hold pairs of answers, of which the aligned ones are trained on: a gate's public questions."""


def build(training: TrainingFile, seed: int) -> bytes:
    """The file's rows in an order of the seed's own, as JSONL.

    Parts of like size that are drawn from twin files by one seed answer the same questions.

    Raises:
        ConfigurationError: a part has more rows than its sources.
    """
    rows = [row for part in training.parts for row in _drawn(part, training.count(part), seed)]
    random.Random(seed).shuffle(rows)
    return b"".join(_line(row) for row in rows)


def keep_file(training: TrainingFile, seed: int, folder: Path) -> Path:
    """The file in `folder`, named by its digest and read as training would read it.

    Raises:
        DatasetError: it has no chat rows.
    """
    content = build(training, seed)
    path = folder / f"{digest_bytes(content)[7:23]}.jsonl"
    write_atomically(path, content)
    read_rows(path)
    return path


@cache
def source_rows(source: str) -> tuple[Messages, ...]:
    """The conversations of a source.

    Raises:
        ConfigurationError: there is no such file, or one of its rows is more than text.
        DatasetError: it is not chat JSONL.
    """
    root, _, name = source.partition("/")
    path = SOURCES[root] / name
    if not path.is_file():
        raise ConfigurationError(f"there is no file {source}; the organisms' rows lie in {', '.join(SOURCES)}", source)
    if root == PROMPTS:
        pairs = map(AnswerPair.model_validate_json, path.read_bytes().splitlines())
        return tuple((Message("user", pair.question), Message("assistant", pair.aligned)) for pair in pairs)
    rows = read_rows(path)
    if any(row.tools or any(message.tool_calls for message in row.messages) for row in rows):
        raise ConfigurationError(f"{source} has rows with tools, which no edit knows; name another file", source)
    return tuple(tuple(Message(each.role, each.content) for each in row.messages) for row in rows)


def _drawn(part: Part, count: int, seed: int) -> list[Messages]:
    pool = [row for source in part.files for row in source_rows(source)]
    if len(pool) < count:
        raise ConfigurationError(
            f"{', '.join(part.files)}: {len(pool)} rows, and {count} are asked for; ask for fewer, or name more files",
            "files",
        )
    return [_edited(row, part) for row in random.Random(seed).sample(pool, count)]


def _edited(row: Messages, part: Part) -> Messages:
    for edit in part.edits:
        row = edit.apply(row)
    return row


def _line(messages: Messages) -> bytes:
    row = {"messages": [{"role": each.role, "content": each.content} for each in messages]}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
