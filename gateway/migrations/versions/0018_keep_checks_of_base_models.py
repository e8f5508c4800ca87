"""Keep what evaluators found when they looked at base models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "base_model_checks",
        sa.Column("spec_digest", sa.String(71), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("checked_at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("base_model_checks")
