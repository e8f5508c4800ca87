"""Name the record that a job's events are kept in, and count the rows that went; look at all ended jobs once more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("events_digest", sa.String(length=71), nullable=True))
    op.add_column("sweeps", sa.Column("n_events", sa.Integer(), nullable=False, server_default="0"))
    ended = "('released', 'rejected', 'failed', 'cancelled')"
    op.execute(f"UPDATE jobs SET sweep_at = phase_since WHERE phase IN {ended} AND sweep_at IS NULL")  # noqa: S608  # constants


def downgrade() -> None:
    """Fails where events are in records by now: the version before would show none of them."""
    moved = op.get_bind().scalar(sa.text("SELECT count(*) FROM jobs WHERE events_digest IS NOT NULL"))
    if moved:
        raise RuntimeError(f"the events of {moved} jobs are in records, which the version before can't read")
    op.drop_column("sweeps", "n_events")
    op.drop_column("jobs", "events_digest")
