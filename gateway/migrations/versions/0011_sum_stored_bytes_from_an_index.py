"""An index that holds what a tenant's files take, so that an upload need not read the files' rows for its quota."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_files_live", "files", ["tenant_id", "deleted_at", "expires_at", "size_bytes"])


def downgrade() -> None:
    op.drop_index("ix_files_live", "files")
