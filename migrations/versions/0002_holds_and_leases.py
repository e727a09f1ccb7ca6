"""Holds on credits while work is in progress, and leases for work that one process does."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

RELEASE = sa.text("""
UPDATE user_credits SET available_credits = available_credits + held_credits, held_credits = 0 WHERE held_credits > 0
""")


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "credit_holds",
        sa.Column("hold_id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("amount", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount > 0", name="ck_credit_holds_amount"),
    )
    op.create_index("ix_credit_holds_expires_at", "credit_holds", ["expires_at"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Release open holds and drop both tables; lock accounts last, in the same order as code that takes holds."""
    op.drop_table("leases")
    op.drop_table("credit_holds")
    op.execute(RELEASE)
