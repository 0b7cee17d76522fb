"""What Alembic runs: the migrations on the connection that the caller handed over, inside the caller's transaction."""

from __future__ import annotations

from alembic import context

from fe_twisted.storage.directory.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll CREATE TABLE back; Alembic does not expect it to.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
