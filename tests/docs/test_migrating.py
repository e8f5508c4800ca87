"""docs/migrating-from-openai.md has each endpoint and field of OpenAI's API and of this one, and no others.

`openai_api.json` has the names of OpenAI's; `docs/openapi.json` those of the gateway, which another test holds to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gateway.tenants.keys import create_key, create_tenant

if TYPE_CHECKING:
    from tests.docs.conftest import Page

PAGE = "docs/migrating-from-openai.md"
MIXED = "Not offered, or not all of it"
"""Its rows are of endpoints, and of the request of a job."""
SECTIONS = {
    "Upload of a file": ("upload of a file",),
    "Upload in parts": ("CreateUploadRequest", "CompleteUploadRequest", "UploadObject", "UploadPartObject"),
    "Request of a job": ("request of a job",),
    "Job": ("JobResponse",),
    "Event": ("EventResponse",),
    "Checkpoint": ("CheckpointResponse",),
    "File": ("FileObject",),
    "Model": ("ModelObject",),
    "Lists and errors": (
        *("JobListResponse", "EventListResponse", "CheckpointListResponse", "FileList", "ModelList", "ErrorDetail"),
    ),
}
LEAVES = {
    "check",
    "file",
    "defense",
    "guardrail.policy",
    "guardrail.defenses",
    "guardrail.progress",
    "data",
    "metadata",
    "metrics",
}
"""Objects whose own fields are described elsewhere, or are the customer's."""
ROW = re.compile(r"^\| (`.*?`) \| (same|differs|added|absent|refused: `(\w+)`) \|", flags=re.MULTILINE)
ENDPOINT = re.compile(r"(?:GET|POST|DELETE) /")
WANTED: Mapping[str, dict[str, Any]] = {
    "method": {"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}},
}
"""Requests with what is refused, by its first name."""


class Row(NamedTuple):
    """What the page says of a name."""

    here: str
    code: str | None
    """With which it is refused."""


def rows_of(text: str) -> dict[str, Row]:
    found = [(name, Row(here, code)) for cell, here, code in ROW.findall(text) for name in re.findall(r"`(.+?)`", cell)]
    assert len(found) == len(dict(found)), "a name has two rows"
    return {name: Row(row.here, row.code or None) for name, row in found}


def tables(page: Page) -> dict[str, dict[str, Row]]:
    """The rows below each `### heading`."""
    text = page.section("Endpoints and fields")
    parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)[1:]
    return {heading: rows_of(body) for heading, body in zip(parts[::2], parts[1::2], strict=True)}


def with_ids(path: str) -> str:
    return re.sub(r"{[^}]*}", "{id}", path)


def fields(schema: Mapping[str, Any], components: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Names of all properties, with those of the objects in them."""
    if at in LEAVES:
        return
    if "$ref" in schema:
        yield from fields(components[schema["$ref"].rpartition("/")[2]], components, at)
    branches = [each for key in ("anyOf", "oneOf", "allOf") for each in schema.get(key, ())]
    for branch in [*branches, *([schema["items"]] if "items" in schema else [])]:
        yield from fields(branch, components, at)
    for name, property_ in schema.get("properties", {}).items():
        path = f"{at}.{name}" if at else name
        yield path
        yield from fields(property_, components, path)


@pytest.fixture
def theirs(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((root / "tests/docs/openai_api.json").read_text())
    return document


@pytest.fixture
def ours(root: Path) -> dict[str, Any]:
    """The same of the gateway, in the same form."""
    document = json.loads((root / "docs/openapi.json").read_text())
    components = document["components"]["schemas"]
    operations = {
        f"{method.upper()} {with_ids(path)}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    upload = operations["POST /v1/files"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    return {
        "endpoints": [*operations],
        "parameters": [
            f"{endpoint}?{parameter['name']}"
            for endpoint, operation in operations.items()
            for parameter in operation.get("parameters", ())
            if parameter["in"] != "path"
        ],
        "objects": {
            "upload of a file": [*fields(upload, components)],
            "request of a job": [*fields(components["CreateJobRequest"], components)],
            **{name: [*fields(schema, components)] for name, schema in components.items()},
        },
    }


def require_true(rows: Mapping[str, Row], theirs: set[str], ours: set[str]) -> None:
    """Each name of either has a row, no other has one, and none says that something is here that is not."""
    assert rows.keys() - theirs - ours == set(), "neither has it"
    assert (theirs | ours) - rows.keys() == set(), "it has no row"
    for name, row in rows.items():
        assert (row.here == "added") == (name not in theirs), name
        assert row.here not in ("same", "differs", "added") or name in ours, name
        assert row.here != "absent" or name not in ours, name


def test_each_endpoint_has_a_row_that_is_true(
    page: Callable[[str], Page], theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    found = tables(page(PAGE))
    rows = found["Endpoints"] | {name: row for name, row in found[MIXED].items() if ENDPOINT.match(name)}
    assert len(rows) >= 25
    require_true(rows, {*theirs["endpoints"]}, {*ours["endpoints"]})


def test_each_parameter_has_a_row_that_is_true(
    page: Callable[[str], Page], theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    rows = tables(page(PAGE))["Queries and headers"]
    assert len(rows) >= 15
    require_true(rows, {*theirs["parameters"]}, {*ours["parameters"]})


@pytest.mark.parametrize("heading", SECTIONS)
def test_each_field_has_a_row_that_is_true(
    page: Callable[[str], Page], theirs: dict[str, Any], ours: dict[str, Any], heading: str
) -> None:
    found = tables(page(PAGE))
    rows = found[heading]
    if heading == "Request of a job":
        rows = rows | {name: row for name, row in found[MIXED].items() if not ENDPOINT.match(name)}
    assert len(rows) >= 4
    names = [{name for each in SECTIONS[heading] for name in api["objects"][each]} for api in (theirs, ours)]
    require_true(rows, *({name for name in some if not name.startswith("data.")} for some in names))


def test_what_is_refused_is_refused_with_the_code_of_its_row(page: Callable[[str], Page], gateway_app: FastAPI) -> None:
    refused = {name: row.code for rows in tables(page(PAGE)).values() for name, row in rows.items() if row.code}
    assert len(refused) >= 16
    services = gateway_app.state.services
    with services.database.transaction() as session:
        tenant = create_tenant(session, "acme", policy="baseline", now=services.now())
        key = create_key(session, tenant, now=services.now()).secret
    with TestClient(gateway_app, headers={"authorization": f"Bearer {key}"}) as client:
        file = client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", b"{}")}).json()
        model = client.get("/v1/models").json()["data"][0]["id"]
        for name, code in refused.items():
            if ENDPOINT.match(name):
                method, _, path = name.partition(" ")
                answer = client.request(method, path.replace("{id}", "x"))
            else:
                body = {"model": model, "training_file": file["id"]} | WANTED[name.partition(".")[0]]
                answer = client.post("/v1/fine_tuning/jobs", json=body)
            assert answer.json()["error"]["code"] == code, name


def test_codes_in_notes_are_codes(page: Callable[[str], Page]) -> None:
    text = page(PAGE).section("Endpoints and fields")
    codes = re.findall(r"(?:refused|answered with):? `(\w+)`", text)
    assert len(codes) >= 8
    assert [code for code in codes if f"`{code}`" not in page("docs/api.md").text] == []


def test_the_versions_of_the_clients_are_those_of_the_tests(page: Callable[[str], Page], root: Path) -> None:
    text = page(PAGE).section("Point your client here")
    versions = [
        re.findall(r"^openai==(\d+\.\d+)", (root / lock).read_text(), flags=re.MULTILINE)[0]
        for lock in ("requirements/demo.lock", "tests/customer/requirements.txt")
    ]
    node = json.loads((root / "tests/customer/package.json").read_text())["dependencies"]["openai"]
    assert f"| `openai` for Python | {' and '.join(versions)}:" in text
    assert f"| `openai` for Node.js | {node.rpartition('.')[0]} on " in text
