"""Remember when a tenant last had a job validated, so that tenants take turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("validated_at", sa.Float(), nullable=True))
    op.create_index("ix_jobs_tenant_phase", "jobs", ["tenant_id", "phase"])


def downgrade() -> None:
    op.drop_index("ix_jobs_tenant_phase", "jobs")
    op.drop_column("tenants", "validated_at")
