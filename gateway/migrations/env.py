"""Alembic's entry: migrates over the connection that `gateway.migrate` hands it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from alembic import context

from gateway import tables
from gateway.db import Table

for module in iter_modules(tables.__path__):  # importing a module registers its tables
    import_module(f"{tables.__name__}.{module.name}")

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
