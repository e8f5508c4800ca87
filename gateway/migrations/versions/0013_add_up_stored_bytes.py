"""Keep what a tenant's files take beside the tenant, and find expired files by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_files_expiry", "files", ["deleted_at", "expires_at"])
    op.add_column("tenants", sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    tenants, files = (
        sa.table("tenants", sa.column("id"), sa.column("stored_bytes")),
        sa.table("files", sa.column("tenant_id"), sa.column("size_bytes"), sa.column("deleted_at")),
    )
    live = files.c.deleted_at.is_(None) & (files.c.tenant_id == tenants.c.id)
    total = sa.select(sa.func.coalesce(sa.func.sum(files.c.size_bytes), 0)).where(live).scalar_subquery()
    op.execute(sa.update(tenants).values(stored_bytes=total))


def downgrade() -> None:
    op.drop_column("tenants", "stored_bytes")
    op.drop_index("ix_files_expiry", "files")
