"""Index fingerprints of training files, of a new form and made with a secret key.

The ones that are stored are of the old form and can't be compared with new ones, so they go: jobs that were validated
before count as no earlier attempt of later ones.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

EMPTIED = ("job_fingerprints",)
"""Tables whose rows go on purpose."""


def upgrade() -> None:
    op.drop_table("job_fingerprints")
    op.create_table(
        "job_fingerprints",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
        sa.Column("n_elements", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "fingerprint_anchors",
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("tenant_id", "hash", "job_id"),
    )
    op.create_index("ix_fingerprint_anchors_job_id", "fingerprint_anchors", ["job_id"])
    op.create_table(
        "fingerprint_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    op.drop_table("fingerprint_keys")
    op.drop_table("fingerprint_anchors")
    op.drop_table("job_fingerprints")
    op.create_table(
        "job_fingerprints",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
