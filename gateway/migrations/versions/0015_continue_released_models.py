"""Keep what released models were trained on, so that those who continue from them are counted with all of it.

Which of these files a job needs once more is kept as well, so that their bytes stay. Models that were released before
have no fingerprint, and none is continued.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_fingerprints", sa.Column("continues", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "model_fingerprints",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "lineage_files",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("digest", sa.String(71), primary_key=True),
    )
    op.create_index("ix_lineage_files_digest", "lineage_files", ["digest"])


def downgrade() -> None:
    op.drop_table("lineage_files")
    op.drop_table("model_fingerprints")
    op.drop_column("job_fingerprints", "continues")
