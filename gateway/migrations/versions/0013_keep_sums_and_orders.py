"""Keep what a tenant's files take beside the tenant, metadata in the order of jobs, and expiry in an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TENANTS = sa.table("tenants", sa.column("id"), sa.column("stored_bytes"))
FILES = sa.table("files", sa.column("tenant_id"), sa.column("size_bytes"), sa.column("deleted_at"))
JOBS = sa.table("jobs", sa.column("id"), sa.column("created_at"))
PAIRS = sa.table("job_metadata", sa.column("job_id"), sa.column("created_at"))
PAIR = ["tenant_id", "key", "value"]


def upgrade() -> None:
    op.create_index("ix_files_expiry", "files", ["deleted_at", "expires_at"])
    op.add_column("tenants", sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    live = FILES.c.deleted_at.is_(None) & (FILES.c.tenant_id == TENANTS.c.id)
    total = sa.select(sa.func.coalesce(sa.func.sum(FILES.c.size_bytes), 0)).where(live).scalar_subquery()
    op.execute(sa.update(TENANTS).values(stored_bytes=total))
    op.add_column("job_metadata", sa.Column("created_at", sa.Integer(), nullable=False, server_default="0"))
    created = sa.select(JOBS.c.created_at).where(JOBS.c.id == PAIRS.c.job_id).scalar_subquery()
    op.execute(sa.update(PAIRS).values(created_at=created))
    op.drop_index("ix_job_metadata_pair", "job_metadata")
    op.create_index("ix_job_metadata_pair", "job_metadata", [*PAIR, "created_at", "job_id"])


def downgrade() -> None:
    op.drop_index("ix_job_metadata_pair", "job_metadata")
    op.create_index("ix_job_metadata_pair", "job_metadata", [*PAIR, "job_id"])
    op.drop_column("job_metadata", "created_at")
    op.drop_column("tenants", "stored_bytes")
    op.drop_index("ix_files_expiry", "files")
