"""Drop the columns that nothing ever wrote: the API's fields of these names are null."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("jobs", "integrations")
    op.drop_column("files", "status_details")


def downgrade() -> None:
    op.add_column("files", sa.Column("status_details", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("integrations", sa.JSON(), nullable=True))
