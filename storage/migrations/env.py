"""Alembic environment: always on the connection that the program hands over."""

from alembic import context

from storage.database import foreign_tables_aside
from storage.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, include_object=foreign_tables_aside)
context.run_migrations()
