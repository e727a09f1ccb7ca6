"""Unique open questions and idempotency keys, responses stored by key, and an append-only ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

REFUSE = """
CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('shopassist.ledger_maintenance', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'credit_transactions only grows'
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'credit_transactions_append_only';
    END IF;
    RETURN NULL;
END
$$
"""
APPEND_ONLY = """
CREATE TRIGGER credit_transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_transactions
FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()
"""


def upgrade() -> None:
    """Add them; the ledger comes last, so that its lock is held only briefly."""
    op.add_column("credit_holds", sa.Column("question_hash", sa.String(64)))
    op.add_column("credit_holds", sa.Column("idempotency_key", sa.String(255)))
    for column in ("question_hash", "idempotency_key"):
        op.create_index(
            f"uq_credit_holds_user_id_{column}",
            "credit_holds",
            ["user_id", column],
            unique=True,
            postgresql_where=sa.column(column).is_not(None),
        )
    op.create_table(
        "idempotent_answers",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("idempotency_key", sa.String(255), primary_key=True),
        sa.Column("request_hash", sa.String(64), nullable=False),
        sa.Column("response", postgresql.JSONB, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_idempotent_answers_expires_at", "idempotent_answers", ["expires_at"])
    op.execute(REFUSE)
    op.add_column("credit_transactions", sa.Column("actor", sa.String(255)))
    op.execute(APPEND_ONLY)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TRIGGER credit_transactions_append_only ON credit_transactions")
    op.execute("DROP FUNCTION refuse_ledger_change()")
    op.drop_table("idempotent_answers")
    for column in ("question_hash", "idempotency_key"):
        op.drop_index(f"uq_credit_holds_user_id_{column}", table_name="credit_holds")
    op.drop_column("credit_holds", "idempotency_key")
    op.drop_column("credit_holds", "question_hash")
    op.drop_column("credit_transactions", "actor")
