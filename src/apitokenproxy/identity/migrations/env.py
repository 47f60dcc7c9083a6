"""Alembic runs this: the revisions are applied on the connection that it was handed, in its transaction."""

from alembic import context

from apitokenproxy.identity.tables import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
