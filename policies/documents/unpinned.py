"""Warns of models that a document takes from the Hugging Face hub without saying which commit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from policies.documents.explain import line_of, show_path
from policies.documents.loader import policy_files
from policies.documents.strict_yaml import FieldPath, parse_documents

HUB = "hf://"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def unpinned_models(path: Path) -> tuple[str, ...]:
    """`file:line: field: what; fix` for each, of a file or of all files of a folder.

    What lies under a branch or a tag can be exchanged: two workers may then load different models under one name.
    """
    return tuple(line for source in policy_files(path) if os.path.isfile(source) for line in _of_file(source))


def _of_file(source: Path) -> Iterator[str]:
    for document in parse_documents(source.read_bytes()):
        for path, text, revision in _hub_models(document.value, ()):
            pinned = text.partition("@")[2] or revision
            if not (isinstance(pinned, str) and _COMMIT.match(pinned)):
                said = f"{pinned!r} is no commit" if pinned else "no revision is named"
                what = f"{said}, so what is loaded can change; name a commit of the hub, 40 hexadecimal digits"
                yield f"{source}:{line_of(path, document)}: {show_path(path)}: {what}"


def _hub_models(value: JsonValue, path: FieldPath) -> Iterator[tuple[FieldPath, str, JsonValue]]:
    """Place and text of each `hf://…` that is a value, with the `revision` that stands beside it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str) and item.startswith(HUB):
            yield (*path, key), item, value.get("revision") if isinstance(value, dict) else None
        else:
            yield from _hub_models(item, (*path, key))
