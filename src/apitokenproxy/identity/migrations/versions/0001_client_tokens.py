"""Client tokens, their generations, their events, and the number of changes."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "atp_tokens",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("revoked", sa.BigInteger),
        sa.Column("suspended", sa.BigInteger),
    )
    op.create_index("ix_atp_tokens_tenant", "atp_tokens", ["tenant"])
    op.create_table(
        "atp_generations",
        sa.Column("token_id", sa.String(12), sa.ForeignKey("atp_tokens.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("retired", sa.BigInteger),
        sa.Column("replaced", sa.BigInteger),
        sa.Column("idle", sa.BigInteger),
        sa.Column("latest", sa.BigInteger),
        sa.Column("rotation", sa.LargeBinary(32), nullable=False),
        sa.Column("first_used", sa.BigInteger),
        sa.Column("last_used", sa.BigInteger),
        sa.Column("uses", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "atp_events",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("token_id", sa.String(12), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
    )
    op.create_index("ix_atp_events_token_id", "atp_events", ["token_id"])
    changes = op.create_table("atp_changes", sa.Column("number", sa.BigInteger, nullable=False))
    op.bulk_insert(changes, [{"number": 0}])
