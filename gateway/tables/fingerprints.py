"""What jobs are trained on, to be compared with later jobs; the files themselves may be deleted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, ForeignKey, Integer, LargeBinary, false
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table


class JobFingerprint(Table):
    __tablename__ = "job_fingerprints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    sketch: Mapped[bytes] = mapped_column(LargeBinary)
    """The `DatasetFingerprint` of the training file, packed."""
    n_elements: Mapped[float] = mapped_column(Float)
    """Its estimated number of elements."""
    continues: Mapped[bool] = mapped_column(default=False, server_default=false())
    """The job continues a released model, so it is compared by the files of its lineage as well."""


class ModelFingerprint(Table):
    """What a released model was trained on in its own job, for those that continue from it."""

    __tablename__ = "model_fingerprints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    sketch: Mapped[bytes] = mapped_column(LargeBinary)
    """As in `JobFingerprint`."""


class FingerprintAnchor(Table):
    """One of the smallest hashes of a job's fingerprint: a file without any of them has nearly nothing in common."""

    __tablename__ = "fingerprint_anchors"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    hash: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """Less 2^63, because databases have signed integers."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class FingerprintKey(Table):
    """The secret that fingerprints are made with; one row, written when the first file is validated."""

    __tablename__ = "fingerprint_keys"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary)
