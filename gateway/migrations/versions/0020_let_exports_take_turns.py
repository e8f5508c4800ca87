"""Remember from when on a tenant's metrics may be exported, so that tenants take turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("exports_from", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("tenants", "exports_from")
