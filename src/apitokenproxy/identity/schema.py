"""The schema of an SQL store: made and brought up to date when the store is opened, under a lock.

Rules:
1. A database that a newer program has used is refused and not touched.
2. Everything happens in the one transaction that the caller began: all of it, or nothing.
"""

import sqlalchemy as sa

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.identity.tables import CHANGES, HEAD, METADATA, VERSION_TABLE


def bring_up_to_date(connection: sa.Connection, name: str) -> None:
    """Make the tables, or migrate them. `name` is what the store is called in a message.

    Raises ConfigurationError, SQLAlchemyError.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if VERSION_TABLE in tables:
        revision = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608
        if revision is not None and revision > HEAD:
            raise ConfigurationError(
                f"store {name} has schema version {revision}, and this apitokenproxy knows version {HEAD}; "
                "upgrade apitokenproxy or name another store"
            )
        whole = revision is not None and (revision != HEAD or tables.issuperset(METADATA.tables))
    else:
        revision, whole = None, tables.isdisjoint(METADATA.tables)
    if not whole:
        raise ConfigurationError(f"store {name} lacks tables of ours, or their version; restore it from a backup")
    if revision != HEAD:
        _upgrade(connection)
    connection.execute(sa.update(CHANGES).where(sa.false()).values(number=0))  # fails where nothing may be written


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - takes 0.1 s, and is hardly ever needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "apitokenproxy.identity:migrations")
    config.set_main_option("path_separator", "os")
    command.upgrade(config, HEAD)
