"""Reads policy documents: YAML files, folders of them, and the shipped presets."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from policies.documents.explain import Schema, describe, line_of, show_path
from policies.documents.satisfiability import unsatisfiable_rules
from policies.documents.schema import BaseModelDocument, CalibrationRecord, PolicyDocument, ReleasePolicy
from policies.documents.strict_yaml import YamlDocument, parse_documents
from policies.documents.suggestions import did_you_mean
from policies.errors import PolicyError

D = TypeVar("D", ReleasePolicy, BaseModelDocument, CalibrationRecord)

_LOG = logging.getLogger(__name__)
_DOCUMENT: TypeAdapter[ReleasePolicy | BaseModelDocument | CalibrationRecord] = TypeAdapter(PolicyDocument)


@cache
def document_schema() -> Schema:
    """JSON Schema (2020-12) of a policy document, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_DOCUMENT.json_schema()}


def load_policy_documents(path: Path) -> tuple[PolicyDocument, ...]:
    """The documents of a file, or of all `*.yaml` and `*.yml` files of a folder.

    Raises:
        PolicyError: with every problem of every file.
    """
    documents, problems = read_documents(path)
    if problems:
        raise _error(problems)
    return documents


def load_policy_file(path: Path) -> PolicyDocument:
    """The document of a file that must hold exactly one."""
    documents = load_policy_documents(path)
    if len(documents) != 1:
        raise _error((f"{path}:1: document: there are {len(documents)} documents; write exactly one",))
    return documents[0]


@cache
def load_presets() -> tuple[PolicyDocument, ...]:
    """The shipped documents, by file name."""
    sources = sorted(
        (entry for entry in files("policies.presets").iterdir() if entry.name.endswith(".yaml")),
        key=lambda entry: entry.name,
    )
    return _all_or_error([parse_policy(entry.read_bytes(), source=entry.name) for entry in sources])


def available_documents(folder: Path | None) -> tuple[PolicyDocument, ...]:
    """Presets and the operator's documents in `folder`; these replace presets of their kind and name."""
    documents = {(document.kind, document.metadata.name): document for document in load_presets()}
    if folder is not None:
        documents |= {(document.kind, document.metadata.name): document for document in _in_force(folder)}
    return tuple(documents.values())


def _in_force(folder: Path) -> tuple[PolicyDocument, ...]:
    """The documents of a folder. A calibration record that can't be read is left out and told in the log.

    Without it less is released, and a service that does not start releases nothing at all.

    Raises:
        PolicyError: with every other problem.
    """
    documents, problems = read_documents(folder)
    unread = [path for path in policy_files(folder) if _holds_calibrations(path)]
    left_out = tuple(each for each in problems if each.startswith(tuple(f"{path}:" for path in unread)))
    serious = tuple(each for each in problems if each not in left_out)
    if serious:
        raise _error(serious)
    for problem in left_out:
        _LOG.warning("a calibration record is left out: %s", problem)
    return documents


def _holds_calibrations(path: Path) -> bool:
    """Whether a file has calibration records and nothing else."""
    try:
        values = [document.value for document in parse_documents(path.read_bytes())]
    except OSError:
        return False
    kinds = [value.get("kind") if isinstance(value, dict) else None for value in values]
    return bool(kinds) and set(kinds) == {"CalibrationRecord"}


def resolve_policy(name_or_path: str, folder: Path | None = None) -> ReleasePolicy:
    """A release policy by the path of its file (it has a `/` or ends in `.yaml` or `.yml`) or by its name."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        document = load_policy_file(Path(name_or_path))
        if not isinstance(document, ReleasePolicy):
            raise _error((f"{name_or_path}:1: kind: it is a {document.kind}, but a ReleasePolicy is needed",))
        return document
    policies = {d.metadata.name: d for d in available_documents(folder) if isinstance(d, ReleasePolicy)}
    return _pick(policies, name_or_path)


def load_calibration(path: Path) -> CalibrationRecord:
    """The calibration record in a file."""
    document = load_policy_file(path)
    if not isinstance(document, CalibrationRecord):
        raise _error((f"{path}:1: kind: it is a {document.kind}, but a CalibrationRecord is needed",))
    return document


def resolve_base_model_document(name: str, folder: Path | None) -> BaseModelDocument:
    """What a `model` of the API stands for: a document of `folder`, or a preset."""
    models = {d.spec.name: d for d in available_documents(folder) if isinstance(d, BaseModelDocument)}
    return _pick(models, name)


def read_documents(path: Path) -> tuple[tuple[PolicyDocument, ...], tuple[str, ...]]:
    """The sound documents of a file or folder, and the problems of the others."""
    sources = policy_files(path)
    if not sources:
        return (), (f"{path}:1: document: no *.yaml or *.yml file in this folder; add one",)
    parsed = []
    for source in sources:
        try:
            parsed.append(parse_policy(source.read_bytes(), source=str(source)))
        except OSError as error:
            parsed.append(((), (f"{source}:1: document: {error.strerror}; check the path and its permissions",)))
    documents = tuple(document for found, _ in parsed for document in found)
    problems = tuple(problem for _, found in parsed for problem in found)
    return documents, problems + _named_twice(path, documents)


def parse_policy(content: bytes, *, source: str) -> tuple[tuple[PolicyDocument, ...], tuple[str, ...]]:
    """The sound documents of a YAML text and the problems of the others, which name `source`."""
    documents: list[PolicyDocument] = []
    problems: list[str] = []
    parsed = parse_documents(content)
    if not parsed:
        problems.append(f"{source}:1: document: empty; write a document or remove the file")
    for document in parsed:
        problems += [f"{source}:{line}: {show_path(path)}: {what}" for line, path, what in document.problems]
        _validate(document, source, documents, problems)
    return tuple(documents), tuple(problems)


def _validate(document: YamlDocument, source: str, documents: list[PolicyDocument], problems: list[str]) -> None:
    try:
        # Through JSON, because strict validation of Python values would refuse lists where tuples are meant.
        valid = _DOCUMENT.validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        problems += describe(document, error, source=source, schema=document_schema())
        return
    unsatisfiable = _unsatisfiable(document, valid, source) if isinstance(valid, ReleasePolicy) else []
    problems += unsatisfiable
    if not document.problems and not unsatisfiable:
        documents.append(valid)


def _unsatisfiable(document: YamlDocument, policy: ReleasePolicy, source: str) -> list[str]:
    """Rules that nothing can pass, which the schema can't see: they depend on how many prompts a probe has."""
    found = []
    for index, field, what in unsatisfiable_rules(policy):
        path = ("spec", "rules", index, field)
        found.append(f"{source}:{line_of(path, document)}: {show_path(path)}: {what}")
    return found


def policy_files(path: Path) -> list[Path]:
    """The file itself, or the policy files of a folder."""
    if not os.path.isdir(path):  # pathlib's raises where the path is too long, or a folder above may not be entered
        return [path]
    return sorted(entry for entry in path.iterdir() if entry.suffix in (".yaml", ".yml"))


def _named_twice(path: Path, documents: Sequence[PolicyDocument]) -> tuple[str, ...]:
    names = [f"{document.kind} {document.metadata.name}" for document in documents]
    twice = sorted({name for name in names if names.count(name) > 1})
    return tuple(f"{path}:1: metadata.name: {name} is given twice; rename or remove one" for name in twice)


def _pick(documents: Mapping[str, D], name: str) -> D:
    if name not in documents:
        raise PolicyError(f"nothing is named {name!r}; {did_you_mean(name, documents)}")
    return documents[name]


def _all_or_error(
    parsed: Sequence[tuple[tuple[PolicyDocument, ...], tuple[str, ...]]],
) -> tuple[PolicyDocument, ...]:
    problems = tuple(problem for _, found in parsed for problem in found)
    if problems:
        raise _error(problems)
    return tuple(document for found, _ in parsed for document in found)


def _error(problems: tuple[str, ...]) -> PolicyError:
    return PolicyError("\n".join(problems), problems=problems)
