"""Whether this deployment exports metrics, and where those of a tenant go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.errors import ExportFailed, InvalidRequest
from gateway.settings import GatewaySettings
from policies.contract.integrations import Integration
from policies.contract.metrics_export import Destination

HINT = "read the job's events, or export them yourself: `tunegate jobs export JOB --to wandb`"


def require_connected(settings: GatewaySettings, tenant_name: str, integrations: Sequence[Integration]) -> None:
    """Refuses integrations that nothing would come of."""
    if not integrations:
        return
    if settings.integration_sink is None:
        message = f"Integrations are not offered here; {HINT}."
        raise InvalidRequest(message, "integrations", "unsupported_integration")
    if settings.integration_keys is not None and not (settings.integration_keys / tenant_name).is_file():
        message = f"No Weights & Biases key of this organisation lies here; ask the service's operator, or {HINT}."
        raise InvalidRequest(message, "integrations", "integration_not_connected")


def destinations(
    settings: GatewaySettings, tenant_name: str, integrations: Sequence[Integration]
) -> tuple[Destination, ...]:
    """In Weights & Biases the projects that were asked for, since the tenant's own key opens them or does not.

    Elsewhere the operator's store, in which each tenant has a part of its own: an experiment can't be called as
    another tenant's, because no tenant's name has an `@`.
    """
    place = settings.integration_target
    if settings.integration_sink == "wandb":
        found = [Destination(place=place, **each.wandb.model_dump()) for each in integrations]
    elif settings.integration_sink == "tensorboard":
        found = [Destination(place=str(Path(place or ".") / tenant_name))]
    else:
        named = [(f"{tenant_name}@{each.wandb.project}", each.wandb) for each in integrations]
        found = [Destination(project=name, name=one.name, tags=one.tags, place=place) for name, one in named]
    return tuple(dict.fromkeys(found))


def credential(settings: GatewaySettings, tenant_name: str) -> dict[str, str]:
    """What the process that exports is given besides: the tenant's key, where the tracker wants one.

    Raises:
        ExportFailed: the key that was there when the job was created is gone.
    """
    if settings.integration_keys is None:
        return {}
    try:
        key = (settings.integration_keys / tenant_name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportFailed("The organisation's key can't be read.", code="integration_not_connected") from error
    return {"WANDB_API_KEY": key}
