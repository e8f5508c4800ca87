"""Let several tenants belong to one organisation. Those that are there belong to none, and are each counted alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("organisation", sa.String(length=64), nullable=True))
    op.create_index("ix_tenants_organisation", "tenants", ["organisation"])


def downgrade() -> None:
    op.drop_index("ix_tenants_organisation", "tenants")
    op.drop_column("tenants", "organisation")
