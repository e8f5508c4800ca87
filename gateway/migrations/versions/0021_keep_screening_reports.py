"""Keep what screening found in a job's training file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("screening_digest", sa.String(length=71), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "screening_digest")
