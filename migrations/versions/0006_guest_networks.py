"""Guest networks: count the new guest accounts of each client network per day."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "guest_networks",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("network", sa.String(64), primary_key=True),
        sa.Column("accounts", sa.Integer, nullable=False),
        sa.CheckConstraint("accounts >= 0", name="ck_guest_networks_accounts"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("guest_networks")
