"""Erasure: the list of erasures, balances of erased accounts, and merges of guests."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0007"

ADJUSTED = "ix_idempotent_answers_adjusted_user"
FINISHED = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM erasures WHERE finished_at IS NULL) THEN
        RAISE EXCEPTION 'an erasure is under way: let it finish first';
    END IF;
END $$
"""


def upgrade() -> None:
    """Add them."""
    _index_adjusted_users()
    op.create_table(
        "erasures",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("subject_hash", sa.String(64), nullable=False),
        sa.Column("is_guest", sa.Boolean, nullable=False),
        sa.Column("had_account", sa.Boolean, nullable=False),
        sa.Column("asked_by", sa.String(16), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("pseudonym", sa.String(64)),
        sa.Column("counts", postgresql.JSONB, nullable=False),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (user_id IS NOT NULL) AND (user_id IS NULL) = (pseudonym IS NULL)",
            name="ck_erasures_finished",
        ),
    )
    op.create_index("ix_erasures_subject_hash", "erasures", ["subject_hash"])
    op.create_index("ix_erasures_requested_at_id", "erasures", ["requested_at", "id"])
    op.create_index(
        "ix_erasures_unfinished", "erasures", ["requested_at"], postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_table(
        "erased_balances",
        sa.Column("subject_hash", sa.String(64), primary_key=True),
        sa.Column("is_guest", sa.Boolean, nullable=False),
        sa.Column("available_credits", sa.Integer, nullable=False),
        sa.Column("last_reset_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("forget_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("available_credits >= 0", name="ck_erased_balances_available_credits"),
    )
    op.create_index("ix_erased_balances_forget_at", "erased_balances", ["forget_at"])
    op.create_table(
        "guest_merges",
        sa.Column("guest_id", sa.String(255), primary_key=True),
        sa.Column("user_id", sa.String(255)),
        sa.Column("merged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("moved", postgresql.JSONB, nullable=False),
    )
    op.create_index("ix_guest_merges_user_id", "guest_merges", ["user_id"])


def _index_adjusted_users() -> None:
    """Build the only index on a large existing table without blocking writes.

    An interrupted build leaves an invalid index, which is dropped first. The build waits for older transactions, but
    blocks
    no other statement, so it may wait for long.
    """
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")
        op.drop_index(ADJUSTED, "idempotent_answers", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            ADJUSTED,
            "idempotent_answers",
            [sa.text("(response ->> 'user_id')")],
            postgresql_where=sa.text("(response ->> 'user_id') IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    """Remove them, unless an erasure is in progress."""
    op.execute(FINISHED)
    op.drop_index(ADJUSTED, "idempotent_answers")
    for table in ("guest_merges", "erased_balances", "erasures"):
        op.drop_table(table)
