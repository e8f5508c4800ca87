"""Nest the base model's recipe in the specs of jobs.

The digest stays that of the spec which the job was created with: a job that is still under way is thereby known to be
of an earlier version, and ends with an error that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Spec = dict[str, Any]  # Any: a JSON document
RECIPE = ("lora", "trainer", "base_learning_rate", "max_sequence_tokens", "checkpoint_every_steps")
JOBS = sa.table("jobs", sa.column("id", sa.String()), sa.column("spec", sa.JSON()))


def upgrade() -> None:
    _rewrite(nested)


def downgrade() -> None:
    _rewrite(flat)


def nested(spec: Spec) -> Spec:
    recipe = {name: spec[name] for name in RECIPE} | {"unaligned": spec["unaligned_base"]}
    rest = {name: value for name, value in spec.items() if name not in RECIPE and name != "unaligned_base"}
    return rest | {"base_model": spec["base_model"] | recipe}


def flat(spec: Spec) -> Spec:
    base = dict(spec["base_model"])
    recipe = {name: base.pop(name) for name in RECIPE} | {"unaligned_base": base.pop("unaligned")}
    return spec | recipe | {"base_model": base}


def _rewrite(change: Callable[[Spec], Spec]) -> None:
    connection = op.get_bind()
    ids = connection.scalars(sa.select(JOBS.c.id)).all()
    for job_id in ids:
        spec = connection.scalars(sa.select(JOBS.c.spec).where(JOBS.c.id == job_id)).one()
        connection.execute(sa.update(JOBS).where(JOBS.c.id == job_id).values(spec=change(spec)))
