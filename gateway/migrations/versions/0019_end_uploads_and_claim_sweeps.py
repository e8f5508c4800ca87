"""Count failed completions of uploads, and let sweeps claim an upload and pass over one without parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("n_failed", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("uploads", sa.Column("may_have_bytes", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("uploads", sa.Column("sweep_at", sa.Double(), nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("sweep_at", "may_have_bytes", "n_failed"):
        op.drop_column("uploads", name)
