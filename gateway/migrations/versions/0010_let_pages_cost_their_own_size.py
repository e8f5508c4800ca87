"""Indexes and a table of metadata pairs, so that a page costs what is on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BATCH = 1000
JOB_INDEXES = {
    "ix_jobs_tenant_evaluated": ["tenant_id", "evaluated_at"],
    "ix_jobs_training_file": ["training_file"],
    "ix_jobs_validation_file": ["validation_file"],
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("evaluated_at", sa.Float(), nullable=True))
    for name, columns in JOB_INDEXES.items():
        op.create_index(name, "jobs", columns)
    for table in ("models", "files"):
        op.drop_index(f"ix_{table}_tenant_id", table)
        op.create_index(f"ix_{table}_tenant_created", table, ["tenant_id", "created_at", "id"])
    pairs = op.create_table(
        "job_metadata",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("value", sa.String(512), nullable=False),
    )
    _copy_pairs(pairs)
    op.create_index("ix_job_metadata_pair", "job_metadata", ["tenant_id", "key", "value", "job_id"])


def _copy_pairs(pairs: sa.Table) -> None:
    """From the documents of jobs, a page of them at a time."""
    connection = op.get_bind()
    jobs = sa.table(
        "jobs", sa.column("id"), sa.column("tenant_id"), sa.column("user_metadata", sa.JSON(none_as_null=True))
    )
    last = ""
    while rows := connection.execute(sa.select(jobs).where(jobs.c.id > last).order_by(jobs.c.id).limit(BATCH)).all():
        last = rows[-1].id
        found = [
            {"job_id": row.id, "tenant_id": row.tenant_id, "key": key, "value": value}
            for row in rows
            for key, value in (row.user_metadata or {}).items()
        ]
        if found:
            connection.execute(sa.insert(pairs), found)


def downgrade() -> None:
    op.drop_table("job_metadata")
    for table in ("models", "files"):
        op.drop_index(f"ix_{table}_tenant_created", table)
        op.create_index(f"ix_{table}_tenant_id", table, ["tenant_id"])
    for name in JOB_INDEXES:
        op.drop_index(name, "jobs")
    op.drop_column("jobs", "evaluated_at")
