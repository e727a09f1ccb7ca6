"""The four tables: accounts, their ledger, consents, and the query cache."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def timestamp(name: str) -> sa.Column[Any]:
    """Return a `timestamptz` column with the default `now()`."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "user_credits",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("is_guest", sa.Boolean, nullable=False),
        sa.Column("available_credits", sa.Integer, nullable=False),
        sa.Column("held_credits", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("max_credits", sa.Integer, nullable=False),
        sa.Column("last_reset_timestamp", sa.DateTime(timezone=True), nullable=False),
        timestamp("created_at"),
        timestamp("updated_at"),
        sa.CheckConstraint("available_credits >= 0", name="ck_user_credits_available_credits"),
        sa.CheckConstraint("held_credits >= 0", name="ck_user_credits_held_credits"),
        sa.CheckConstraint("max_credits > 0", name="ck_user_credits_max_credits"),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_user_credits_reset_due",
        "user_credits",
        ["last_reset_timestamp"],
        postgresql_where=sa.text("NOT is_guest"),
    )
    op.create_table(
        "credit_transactions",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("transaction_type", sa.String, nullable=False),
        sa.Column("amount", sa.Integer, nullable=False),
        timestamp("timestamp"),
        sa.Column("description", sa.Text),
        sa.Column("balance_after", sa.Integer, nullable=False),
        sa.Column("operation_id", sa.Uuid),
        sa.CheckConstraint("amount <> 0", name="ck_credit_transactions_amount"),
    )
    op.create_index("ix_credit_transactions_user_id_id", "credit_transactions", ["user_id", "id"])
    op.create_index("ix_credit_transactions_timestamp", "credit_transactions", ["timestamp"], postgresql_using="brin")
    op.create_table(
        "user_consents",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("terms_accepted", sa.Boolean, nullable=False),
        sa.Column("marketing_consent", sa.Boolean, nullable=False),
        timestamp("timestamp"),
        timestamp("updated_at"),
    )
    op.create_table(
        "query_cache",
        sa.Column("query_hash", sa.String(64), primary_key=True),
        sa.Column("result", postgresql.JSONB, nullable=False),
        timestamp("cached_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("expires_at > cached_at", name="ck_query_cache_expires_at"),
    )
    op.create_index("ix_query_cache_expires_at", "query_cache", ["expires_at"])


def downgrade() -> None:
    """Drop them."""
    for table in ("query_cache", "user_consents", "credit_transactions", "user_credits"):
        op.drop_table(table)
