"""The commands, against a live gateway and its database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from openai import AuthenticationError
from typer.testing import CliRunner

from gateway.cli.commands import COMMANDS
from gateway.tenants.keys import PREFIX, find_tenant
from policies.cli.main import build_app
from policies.errors import ConfigurationError, TunegateError

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway


@pytest.fixture
def environment(live_gateway: LiveGateway) -> dict[str, str]:
    """What a shell on the gateway's machine would have set."""
    settings = live_gateway.services.settings
    return {
        "TUNEGATE_DATABASE_URL": settings.database_url,
        "TUNEGATE_STORE_URL": settings.store_url,
        "TUNEGATE_BASE_URL": f"{live_gateway.url}/v1",
        "TUNEGATE_API_KEY": live_gateway.tenant_key(),
    }


def run(environment: dict[str, str], *arguments: str) -> str:
    app = build_app(COMMANDS)
    result = CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False, standalone_mode=False)
    return result.stdout


def test_created_key_works_until_it_is_revoked(live_gateway: LiveGateway, environment: dict[str, str]) -> None:
    made = json.loads(run(environment, "keys", "create", "--tenant", "umbrella", "--policy", "strict", "-o", "json"))
    assert made["policy"] == "strict"
    client = live_gateway.client(made["key"])
    assert len(client.models.list().data) >= 1
    run(environment, "keys", "revoke", made["id"])
    with pytest.raises(AuthenticationError):
        client.models.list()


def test_key_is_printed_alone_for_shells(environment: dict[str, str]) -> None:
    assert run(environment, "keys", "create", "--tenant", "umbrella").startswith(PREFIX)


def test_listed_keys_are_redacted(environment: dict[str, str]) -> None:
    listed = run(environment, "keys", "list", "-o", "json")
    assert len(json.loads(listed)) == 1
    assert environment["TUNEGATE_API_KEY"] not in listed


def test_tenant_keeps_its_policy(environment: dict[str, str]) -> None:
    run(environment, "keys", "create", "--tenant", "umbrella")
    with pytest.raises(ConfigurationError, match="bound to policy baseline"):
        run(environment, "keys", "create", "--tenant", "umbrella", "--policy", "strict")


def test_tenant_keeps_its_organisation(live_gateway: LiveGateway, environment: dict[str, str]) -> None:
    run(environment, "keys", "create", "--tenant", "umbrella-red", "--organisation", "umbrella")
    run(environment, "keys", "create", "--tenant", "umbrella-red")
    with live_gateway.services.database.reading() as session:
        tenant = find_tenant(session, "umbrella-red")
        assert tenant is not None
        assert tenant.organisation == "umbrella"
    with pytest.raises(ConfigurationError, match="belongs to organisation umbrella"):
        run(environment, "keys", "create", "--tenant", "umbrella-red", "--organisation", "other")


def test_organisation_is_named_like_tenants_are(environment: dict[str, str]) -> None:
    with pytest.raises(TunegateError, match="Organisation 'a b'"):
        run(environment, "keys", "create", "--tenant", "umbrella", "--organisation", "a b")


def test_unknown_policy_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(TunegateError, match="no release policy named 'lax'"):
        run(environment, "keys", "create", "--tenant", "umbrella", "--policy", "lax")


def test_wrong_setting_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="TUNEGATE_EVALUATOR_TOKEN"):
        run(environment | {"TUNEGATE_EVALUATOR_TOKEN": "short"}, "keys", "list")


def test_file_is_uploaded_validated_listed_and_deleted(
    environment: dict[str, str], tmp_path: Path, training_bytes: bytes
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(training_bytes)
    file_id = json.loads(run(environment, "files", "upload", str(path), "-o", "json"))["id"]
    assert json.loads(run(environment, "files", "validate", file_id, "-o", "json"))["valid"]
    assert [file["id"] for file in json.loads(run(environment, "files", "list", "-o", "json"))] == [file_id]
    run(environment, "files", "delete", file_id)
    assert json.loads(run(environment, "files", "list", "-o", "json")) == []


def test_error_of_the_gateway_is_shown_with_its_code(environment: dict[str, str]) -> None:
    with pytest.raises(TunegateError) as error:
        run(environment, "jobs", "get", "ftjob-unknown")
    assert error.value.code == "job_not_found"


def test_models_are_listed_in_a_table(environment: dict[str, str]) -> None:
    assert "smollm2-135m-instruct" in run(environment, "models", "list")
