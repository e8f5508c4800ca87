"""Record the API key that created a job, and widen what PostgreSQL would have refused.

More than 2³¹ trained tokens, or the names of all defenses together, could not be stored there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("key_id", sa.String(length=64), nullable=True))
    with op.batch_alter_table("phase_transitions") as table:
        table.alter_column("defense", existing_type=sa.String(length=128), type_=sa.String(length=255))
    if op.get_context().dialect.name == "postgresql":  # SQLite's integers are as wide as they need to be
        op.alter_column("jobs", "trained_tokens", existing_type=sa.Integer(), type_=sa.BigInteger())


def downgrade() -> None:
    """Fails on PostgreSQL where a job has more tokens than the narrower column holds."""
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("jobs", "trained_tokens", existing_type=sa.BigInteger(), type_=sa.Integer())
    with op.batch_alter_table("phase_transitions") as table:
        table.alter_column("defense", existing_type=sa.String(length=255), type_=sa.String(length=128))
    op.drop_column("jobs", "key_id")
