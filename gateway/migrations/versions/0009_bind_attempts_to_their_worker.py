"""Remember of what kind an attempt is and whose. Attempts under way lose their lease and are taken up again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("attempt_kind", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("worker_key_hash", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "worker_key_hash")
    op.drop_column("jobs", "attempt_kind")
