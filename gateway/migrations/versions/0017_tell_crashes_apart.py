"""Keep how the last attempt of a job crashed, so that the same crash is not tried a third time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("crash_signature", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "crash_signature")
