"""The tables of an SQL store, and the statements on them. `rows` says what stands in the columns.

Every name begins with `atp_`, so that the tables can stand in the host application's own database.
"""

from typing import Final

import sqlalchemy as sa

from apitokenproxy.messages import Hidden

HEAD: Final = "0002"
"""The newest revision below `migrations/versions`: what these tables are."""


class _Hidden(sa.TypeDecorator[bytes]):
    """Bytes; SQLAlchemy logs the rows it reads at DEBUG, so what it reads is hidden."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_result_value(self, value: bytes | None, _dialect: sa.Dialect) -> bytes | None:
        return None if value is None else Hidden(value)


VERSION_TABLE: Final = "atp_schema"

METADATA = sa.MetaData()
TOKENS = sa.Table(
    "atp_tokens",
    METADATA,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("tenant", sa.String(128), nullable=False, index=True),
    sa.Column("subject", sa.String(256), nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("attributes", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger),
    sa.Column("revoked", sa.BigInteger),
    sa.Column("suspended", sa.BigInteger),
)
GENERATIONS = sa.Table(
    "atp_generations",
    METADATA,
    sa.Column("token_id", sa.ForeignKey("atp_tokens.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", _Hidden(32), nullable=False, unique=True),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.BigInteger),
    sa.Column("replaced", sa.BigInteger),
    sa.Column("idle", sa.BigInteger),
    sa.Column("latest", sa.BigInteger),
    sa.Column("rotation", _Hidden(32), nullable=False),
    sa.Column("first_used", sa.BigInteger),
    sa.Column("last_used", sa.BigInteger),
    sa.Column("uses", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)
EVENTS = sa.Table(
    "atp_events",
    METADATA,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("token_id", sa.String(12), nullable=False, index=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("details", sa.Text, nullable=False),
)
CHANGES = sa.Table("atp_changes", METADATA, sa.Column("number", sa.BigInteger, nullable=False))
"""One row, which every change locks before it reads anything: so they are made one after the other."""
STATES = sa.Table(
    "atp_states",
    METADATA,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("value", _Hidden, nullable=False),
)

_ID: Final[sa.BindParameter[str]] = sa.bindparam("token_id")

_SELECT = sa.select(
    TOKENS, *(column for column in GENERATIONS.c if column.name != "created"),
    GENERATIONS.c.created.label("generation_created"),
).outerjoin_from(TOKENS, GENERATIONS)  # fmt: skip
FIND = _SELECT.where(TOKENS.c.id == _ID).order_by(GENERATIONS.c.number)
LIST = _SELECT.order_by(TOKENS.c.created, TOKENS.c.id, GENERATIONS.c.number)
COUNT = sa.update(CHANGES).values(number=CHANGES.c.number + 1)
READ_CHANGES = sa.select(CHANGES.c.number)
UPDATE_TOKEN = sa.update(TOKENS).where(TOKENS.c.id == _ID)
UPDATE_GENERATION = sa.update(GENERATIONS).where(
    GENERATIONS.c.token_id == sa.bindparam("of"), GENERATIONS.c.number == sa.bindparam("at")
)
DELETE = sa.delete(TOKENS).where(TOKENS.c.id == _ID)
READ_EVENTS = sa.select(EVENTS).where(EVENTS.c.token_id == _ID).order_by(EVENTS.c.number)
_FIRST: Final[sa.BindParameter[int]] = sa.bindparam("first")
_LAST: Final[sa.BindParameter[int]] = sa.bindparam("last")
NOTE = UPDATE_GENERATION.values(
    uses=GENERATIONS.c.uses + sa.bindparam("count"),
    first_used=sa.case((GENERATIONS.c.first_used < _FIRST, GENERATIONS.c.first_used), else_=_FIRST),
    last_used=sa.case((GENERATIONS.c.last_used > _LAST, GENERATIONS.c.last_used), else_=_LAST),
)

_NAME: Final[sa.BindParameter[str]] = sa.bindparam("state")
READ_STATE = sa.select(STATES).where(STATES.c.name == _NAME)
_PREFIX: Final[sa.BindParameter[str]] = sa.bindparam("prefix", type_=sa.String)
READ_STATES = sa.select(STATES).where(sa.func.substr(STATES.c.name, 1, sa.func.length(_PREFIX)) == _PREFIX)
WRITE_STATE = (
    sa.update(STATES)
    .where(STATES.c.name == _NAME, STATES.c.number == sa.bindparam("read"))
    .values(number=STATES.c.number + 1)
)
