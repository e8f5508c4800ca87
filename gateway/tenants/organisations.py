"""Organisations: tenants that an operator made for one customer, whose tries at the same data are counted together."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.tables.tenancy import Tenant


def lock_organisation(session: Session, tenant_id: str) -> tuple[str, ...]:
    """Ids of all tenants of the tenant's organisation, its own included, locked until the transaction ends.

    They are locked in one order, so that jobs of two of them wait for each other and never in a circle. A tenant that
    is made meanwhile is no gap: its first job locks the others too.
    """
    organisation = session.scalar(select(Tenant.organisation).where(Tenant.id == tenant_id))
    own = Tenant.id == tenant_id if organisation is None else Tenant.organisation == organisation
    return tuple(session.scalars(select(Tenant.id).where(own).order_by(Tenant.id).with_for_update(key_share=True)))
