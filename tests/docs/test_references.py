"""What the code has, the documentation names: settings, keys, metrics, codes, defenses, probes, routes, states."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

import policies.worker.metrics
from evaluator.prompts.prompt_sets import BUILTIN
from gateway.errors import ApiError
from gateway.jobs.states import TRANSITIONS, public_status
from gateway.settings import GatewaySettings
from policies.contract.artifacts import Record
from policies.contract.defenses import DefenseSettings
from policies.contract.jobs import Phase
from policies.contract.metrics import METRICS
from policies.contract.release import RuleOutcome
from policies.contract.suite import ProbeSettings
from policies.datasets.chat_rows import MAX_MESSAGES
from policies.datasets.problems import ERRORS, WARNINGS
from policies.documents.loader import available_documents, document_schema
from policies.documents.schema import ReleasePolicy
from policies.errors import TunegateError
from policies.worker.self_test_metrics import SelfTestCollector
from policies.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from tests.docs.conftest import Page

PACKAGES = ("policies", "gateway", "trainer", "evaluator")
CLIENT_VARIABLES = {"TUNEGATE_BASE_URL", "TUNEGATE_API_KEY"}
"""Read by the command line alone."""


def variables_of(settings: type[GatewaySettings] | type[WorkerSettings]) -> set[str]:
    return {f"TUNEGATE_{name.upper()}" for name in settings.model_fields}


def schema_keys(schema: object) -> Iterator[str]:
    """Every property name anywhere in a JSON Schema."""
    if isinstance(schema, Mapping):
        if isinstance(properties := schema.get("properties"), Mapping):
            yield from properties
        for value in schema.values():
            yield from schema_keys(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from schema_keys(value)


def exported_families(app: FastAPI) -> set[str]:
    """Metrics as one writes them: counters with `_total`, histograms by their name alone."""
    assert policies.worker.metrics.RUNS  # importing it registers the workers' metrics
    families = [*app.state.metrics.collect(), *REGISTRY.collect(), *SelfTestCollector(Path()).collect()]
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if family.name.startswith("tunegate_")
    }


def error_classes(cls: type[TunegateError] = TunegateError) -> Iterator[type[TunegateError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from error_classes(child)


def literal_codes(tree: ast.AST) -> Iterator[str]:
    """Codes that are written where an error is made: `code="…"`, `Failure("…", …)`, `InvalidRequest(m, p, "…")`."""
    api_errors = {cls.__name__ for cls in error_classes(ApiError)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        found = [keyword.value for keyword in node.keywords if keyword.arg in ("code", "error_code")]
        found += node.args[:1] if name in ("Failure", "RecordError") else []
        found += node.args[2:3] if name in api_errors else []
        yield from (value.value for value in found if isinstance(value, ast.Constant) and isinstance(value.value, str))


def settings_of(union: object) -> list[type[Record]]:
    """The members of a discriminated union."""
    (members, _) = get_args(union)
    return list(get_args(members))


def test_each_setting_is_documented(page: Callable[[str], Page]) -> None:
    for heading, settings in (
        ("Gateway, gateway worker and validator", GatewaySettings),
        ("Trainer and evaluator", WorkerSettings),
    ):
        assert (
            variables_of(settings) - set(re.findall(r"`(TUNEGATE_\w+)`", page("docs/settings.md").section(heading)))
            == set()
        )


def test_no_variable_is_documented_that_nothing_reads(pages: list[Page]) -> None:
    known = variables_of(GatewaySettings) | variables_of(WorkerSettings) | CLIENT_VARIABLES
    mentioned = {name for page in pages for name in re.findall(r"TUNEGATE_[A-Z_]*[A-Z]", page.text)}
    assert mentioned - known == set()


def test_each_policy_key_is_documented(page: Callable[[str], Page]) -> None:
    keys = set(schema_keys(document_schema()))
    assert len(keys) >= 40
    assert keys - page("docs/policy.md").coded_words == set()


def test_each_rule_metric_is_documented_with_its_unit_and_direction(page: Callable[[str], Page]) -> None:
    text = page("docs/policy.md").section("Metrics")
    metrics = [(name, *described) for metrics in METRICS.values() for name, described in metrics.items()]
    assert len(metrics) >= 5
    for name, unit, higher_is_better in metrics:
        assert f"| `{name}` | {unit} | {'higher' if higher_is_better else 'lower'} |" in text


def test_each_preset_is_documented(page: Callable[[str], Page]) -> None:
    documents = available_documents(None)
    assert len(documents) >= 3
    text = page("docs/policy.md").section("Presets")
    assert [document.metadata.name for document in documents if f"| `{document.metadata.name}` |" not in text] == []


def test_the_limits_of_the_presets_are_those_of_the_page(page: Callable[[str], Page]) -> None:
    presets = {d.metadata.name: d for d in available_documents(None) if isinstance(d, ReleasePolicy)}
    strict = {rule.id: rule.limit for rule in presets["strict"].spec.rules}
    for rule in presets["baseline"].spec.rules:
        row = re.search(rf"^\| {rule.id} \|(.*)\|(.*)\|$", page("docs/limits.md").text, flags=re.MULTILINE)
        assert row is not None, rule.id
        figures = [float(re.findall(r"\d+\.\d+", cell)[0]) for cell in row.groups()]
        assert figures == [rule.limit, strict[rule.id]], rule.id


def test_each_exported_metric_is_documented(page: Callable[[str], Page], gateway_app: FastAPI) -> None:
    families = exported_families(gateway_app)
    assert len(families) >= 15
    assert {name for name in families if f"| `{name}` |" not in page("docs/metrics.md").text} == set()


def test_no_metric_is_documented_that_nothing_exports(pages: list[Page], gateway_app: FastAPI) -> None:
    mentioned = {span for page in pages for span in page.spans if re.fullmatch(r"tunegate_[a-z_]+", span)}
    assert mentioned - exported_families(gateway_app) == set()


def test_each_error_code_is_documented(page: Callable[[str], Page], root: Path) -> None:
    paths = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    codes = {cls.code for cls in error_classes()}
    codes |= {code for path in paths for code in literal_codes(ast.parse(path.read_text()))}
    assert len(paths) > 100
    assert len(codes) > 40
    assert codes - page("docs/api.md").coded_words == set()


def test_each_dataset_code_is_documented(page: Callable[[str], Page]) -> None:
    for heading, codes in (("Errors", ERRORS), ("Warnings", WARNINGS)):
        text = page("docs/datasets.md").section(heading)
        assert [code for code in codes if f"| `{code}` |" not in text] == []


@pytest.mark.parametrize(
    ("name", "union", "key"), [("defenses", DefenseSettings, "name"), ("probes", ProbeSettings, "probe")]
)
def test_each_defense_and_probe_is_documented_with_its_settings(
    page: Callable[[str], Page], name: str, union: object, key: str
) -> None:
    members = settings_of(union)
    assert len(members) >= 2
    for settings in members:
        section = page(f"docs/{name}.md").section(settings.model_fields[key].default)
        undocumented = [field for field in settings.model_fields if field != key and f"`{field}`" not in section]
        assert undocumented == [], settings.__name__


def test_the_sizes_of_the_built_in_prompt_sets_are_those_of_the_page(page: Callable[[str], Page]) -> None:
    assert len(BUILTIN) >= 4
    for probe, (name, _) in BUILTIN.items():
        count = len((files("evaluator") / "prompts" / name).read_text().splitlines())
        assert re.search(rf"\b{count}\b", page("docs/probes.md").section(probe)), f"{probe}: {count} prompts"


@pytest.mark.parametrize(("name", "heading"), [("policy", "How a rule is judged"), ("metrics", "Gateway")])
def test_each_outcome_of_a_rule_is_documented(page: Callable[[str], Page], name: str, heading: str) -> None:
    text = page(f"docs/{name}.md").section(heading)
    assert [outcome for outcome in get_args(RuleOutcome) if f"`{outcome}`" not in text] == []


def test_the_limit_of_messages_is_that_of_the_page(page: Callable[[str], Page]) -> None:
    assert f"| `messages` | 1 to {MAX_MESSAGES} of them |" in page("docs/datasets.md").text


def test_each_route_is_documented(page: Callable[[str], Page], gateway_app: FastAPI) -> None:
    paths = gateway_app.openapi()["paths"]
    routes = [f"{method.upper()} {re.sub(r'{[^}]*}', '{id}', path)}" for path, on in paths.items() for method in on]
    assert len(routes) >= 20
    assert [route for route in routes if f"| `{route}` |" not in page("docs/api.md").text] == []


def test_the_state_diagram_shows_transitions_that_exist(page: Callable[[str], Page]) -> None:
    diagram = next(block for block in page("docs/architecture.md").blocks if "stateDiagram" in block.text).text
    arrows = re.findall(r"^    (\w+) --> (\w+)", diagram, flags=re.MULTILINE)
    assert {phase for arrow in arrows for phase in arrow} == {phase.value for phase in Phase}
    assert [arrow for arrow in arrows if Phase(arrow[1]) not in TRANSITIONS[Phase(arrow[0])]] == []


def test_each_phase_is_documented_with_its_public_status(page: Callable[[str], Page]) -> None:
    text = page("docs/architecture.md").section("States of a job")
    rows = {status: phases for phases, status in re.findall(r"^\| (`.*`) \| `(\w+)` \|$", text, flags=re.MULTILINE)}
    assert [phase for phase in Phase if f"`{phase}`" not in rows[public_status(phase)]] == []


def test_the_picture_of_the_tree_names_every_room(page: Callable[[str], Page], root: Path) -> None:
    drawn = next(block.text for block in page("docs/architecture.md").blocks if "subgraph gateway" in block.text)
    rooms = [
        folder.name
        for package in ("policies", "gateway", "trainer", "evaluator")
        for folder in sorted((root / package).iterdir())
        if (folder / "__init__.py").is_file()
    ]
    assert len(rooms) >= 35
    assert [room for room in rooms if not re.search(rf"\b{room}\b", drawn)] == []
