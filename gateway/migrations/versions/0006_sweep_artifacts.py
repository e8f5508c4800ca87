"""Remember when a job's artifacts may be deleted, and what was; sums of what metrics count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("sweep_at", sa.Float(), nullable=True))
    op.create_index("ix_jobs_sweep_at", "jobs", ["sweep_at"])
    ended = "('released', 'rejected', 'failed', 'cancelled')"
    op.execute(f"UPDATE jobs SET sweep_at = phase_since WHERE phase IN {ended}")  # noqa: S608  # constants
    op.create_index("ix_files_digest", "files", ["digest"])
    op.create_table(
        "sweeps",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("n_artifacts", sa.Integer(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )
    op.create_table(
        "rollups",
        sa.Column("series", sa.String(64), primary_key=True),
        sa.Column("label_key", sa.String(512), primary_key=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
    )
    op.create_table(
        "rollup_marks",
        sa.Column("series", sa.String(64), primary_key=True),
        sa.Column("upto", sa.BigInteger(), nullable=False),
        sa.Column("next_upto", sa.BigInteger(), nullable=False),
        sa.Column("noted_at", sa.Float(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("rollup_marks")
    op.drop_table("rollups")
    op.drop_table("sweeps")
    op.drop_index("ix_files_digest", "files")
    op.drop_index("ix_jobs_sweep_at", "jobs")
    op.drop_column("jobs", "sweep_at")
