"""Maintenance runs: a record of each run of a background job."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "maintenance_runs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
        sa.Column("did", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("started_by", sa.String(16), nullable=False),
        sa.Column("repeats", sa.Integer, server_default=sa.text("1"), nullable=False),
        sa.Column("note", sa.String(500)),
        sa.CheckConstraint("repeats > 0", name="ck_maintenance_runs_repeats"),
    )
    op.create_index("ix_maintenance_runs_job_id", "maintenance_runs", ["job", "id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("maintenance_runs")
