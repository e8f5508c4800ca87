"""Commands on the gateway's machine: serve it, and manage its keys."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import JsonValue

from gateway.cli.client import print_rows
from gateway.db import one_transaction
from gateway.kit.clock import system_clock
from gateway.migrate import require_migrated, upgrade
from gateway.policy_catalog import PolicyCatalog
from gateway.settings import GatewaySettings
from gateway.tables.tenancy import ApiKey, Tenant
from gateway.tenants import keys
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.environment import read_settings
from policies.errors import ConfigurationError
from policies.own_memory import refuse_readers

app = typer.Typer(no_args_is_help=True)
key_app = typer.Typer(no_args_is_help=True, help="Tenants' API keys, in the database that the settings name.")
app.add_typer(key_app, name="keys")

Output = Annotated[OutputFormat, OUTPUT_OPTION]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    operations_host: Annotated[str, typer.Option(help="Address for /readyz and /metrics.")] = "127.0.0.1",
    operations_port: Annotated[int, typer.Option(help="Port for them, which tenants must not reach.")] = 9100,
) -> None:
    """Migrate the database and serve the API until interrupted."""
    import uvicorn

    from gateway.app import create_app
    from gateway.http.connections import BoundedProtocol
    from gateway.http.json_log import log_as_json
    from gateway.http.operations import operations_app, served_beside

    refuse_readers()  # a child that trains may run as the same user on the same machine
    settings = _settings()
    log_as_json()
    upgrade(settings.database_url)
    app = create_app(settings)
    with served_beside(operations_app(app), host=operations_host, port=operations_port):
        uvicorn.run(app, host=host, port=port, access_log=False, server_header=False, http=BoundedProtocol)


@key_app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Name of the tenant; created if it does not exist.")],
    policy: Annotated[str | None, typer.Option(help="Release policy of a new tenant.")] = None,
    organisation: Annotated[
        str | None, typer.Option(help="Of a new tenant: those of one organisation share their attempts at a file.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a key and print it, this once."""
    settings = _settings()
    upgrade(settings.database_url)
    bound = PolicyCatalog.load(settings).release_policy(policy or settings.default_policy).metadata.name
    now = int(system_clock())
    with one_transaction(settings.database_url) as session:
        owner = keys.find_tenant(session, tenant) or keys.create_tenant(
            session, tenant, policy=bound, now=now, organisation=organisation
        )
        _require_as_bound(owner, policy=policy, organisation=organisation)
        issued = keys.create_key(session, owner, now=now)
    if output is OutputFormat.TABLE:
        typer.echo(issued.secret)
    else:
        print_document({"id": issued.row.id, "tenant": tenant, "policy": owner.policy, "key": issued.secret}, output)


def _require_as_bound(owner: Tenant, *, policy: str | None, organisation: str | None) -> None:
    """Raises `ConfigurationError` where a tenant that exists was made with something else."""
    if policy is not None and policy != owner.policy:
        raise ConfigurationError(f"tenant {owner.name} is bound to policy {owner.policy}; leave --policy out", "policy")
    if organisation is not None and organisation != owner.organisation:
        belongs = f"organisation {owner.organisation}" if owner.organisation else "no organisation"
        message = f"tenant {owner.name} belongs to {belongs}; leave --organisation out"
        raise ConfigurationError(message, "organisation")


@key_app.command("list")
def list_(output: Output = OutputFormat.TABLE) -> None:
    """List all keys, redacted."""
    with one_transaction(_migrated_url()) as session:
        rows = [_describe(key) for key in keys.list_keys(session)]
    print_rows(rows, ("id", "tenant_id", "key", "created_at", "last_used_at", "revoked_at"), output)


@key_app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, `key_…`.")]) -> None:
    """Revoke a key, at once and for good."""
    with one_transaction(_migrated_url()) as session:
        keys.revoke_key(session, key_id, now=int(system_clock()))
    typer.echo(f"{key_id} is revoked")


def _settings() -> GatewaySettings:
    return read_settings(GatewaySettings)


def _migrated_url() -> str:
    url = _settings().database_url
    require_migrated(url)
    return url


def _describe(key: ApiKey) -> dict[str, JsonValue]:
    return {
        "id": key.id,
        "tenant_id": key.tenant_id,
        "key": key.redacted,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }
