"""Keep what jobs ask for in `integrations`, and when their metrics are exported next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("integrations", sa.JSON(), nullable=True))
    op.create_table(
        "metrics_exports",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("due_at", sa.Float(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("exported", sa.String(71), nullable=True),
        sa.Column("error_code", sa.String(64), nullable=True),
    )
    op.create_index("ix_metrics_exports_due_at", "metrics_exports", ["due_at"])


def downgrade() -> None:
    op.drop_index("ix_metrics_exports_due_at", "metrics_exports")
    op.drop_table("metrics_exports")
    op.drop_column("jobs", "integrations")
