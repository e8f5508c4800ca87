"""Upload files in parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Integer(), nullable=False),
        sa.Column("file_expires_after", sa.Integer(), nullable=True),
        sa.Column("n_parts", sa.Integer(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("completion_digest", sa.String(71), nullable=True),
        sa.Column("file_id", sa.String(64), sa.ForeignKey("files.id"), nullable=True),
    )
    op.create_index("ix_uploads_tenant_status", "uploads", ["tenant_id", "status"])
    op.create_index("ix_uploads_status_expiry", "uploads", ["status", "expires_at"])
    op.create_index("ix_uploads_received", "uploads", ["received_bytes"])
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("upload_id", sa.String(64), sa.ForeignKey("uploads.id"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
    )
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"])


def downgrade() -> None:
    """Parts that were not completed stop counting for their tenants; their bytes lie in the store's `files/uploads`."""
    uploads = sa.table("uploads", sa.column("tenant_id"), sa.column("received_bytes"))
    tenants = sa.table("tenants", sa.column("id"), sa.column("stored_bytes"))
    received = sa.select(sa.func.coalesce(sa.func.sum(uploads.c.received_bytes), 0)).where(
        uploads.c.tenant_id == tenants.c.id
    )
    op.execute(sa.update(tenants).values(stored_bytes=tenants.c.stored_bytes - received.scalar_subquery()))
    op.drop_table("upload_parts")
    op.drop_table("uploads")
