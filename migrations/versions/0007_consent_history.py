"""Consent history: notices, events of grants and withdrawals, and the audit log of administrators."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

# Only the erasure of a person gets past these, in a transaction that names them: their events may go, and in the audit
# of administrators their name and what was written about them may be replaced.
REFUSE_EVENT_CHANGE = """
CREATE FUNCTION refuse_consent_event_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.user_id = current_setting('shopassist.erasing_user', true) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'consent_events only grows'
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'consent_events_append_only';
END
$$
"""
REFUSE_AUDIT_CHANGE = """
CREATE FUNCTION refuse_admin_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased CONSTANT text := current_setting('shopassist.erasing_user', true);
BEGIN
    IF TG_OP = 'UPDATE'
        AND (NEW.id, NEW."timestamp", NEW.act, NEW.request_id) IS NOT DISTINCT FROM
            (OLD.id, OLD."timestamp", OLD.act, OLD.request_id)
        AND (NEW.actor = OLD.actor OR OLD.actor = erased)
        AND ((NEW.target, NEW.reason) IS NOT DISTINCT FROM (OLD.target, OLD.reason) OR OLD.target = erased)
        AND erased IN (OLD.actor, OLD.target)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'admin_audit only grows'
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'admin_audit_append_only';
END
$$
"""
REFUSE_CHANGE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', CONSTRAINT = TG_TABLE_NAME || '_append_only';
END
$$
"""
TRIGGERS = (
    """
    CREATE TRIGGER consent_notices_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON consent_notices
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER consent_events_append_only BEFORE UPDATE OR DELETE ON consent_events
    FOR EACH ROW EXECUTE FUNCTION refuse_consent_event_change()
    """,
    """
    CREATE TRIGGER consent_events_not_emptied BEFORE TRUNCATE ON consent_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER admin_audit_append_only BEFORE UPDATE OR DELETE ON admin_audit
    FOR EACH ROW EXECUTE FUNCTION refuse_admin_audit_change()
    """,
    """
    CREATE TRIGGER admin_audit_not_emptied BEFORE TRUNCATE ON admin_audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
)
# Records of before the history: what they say, without a text, since none was kept. Who was only not asked about
# marketing has decided nothing.
EARLIER_RECORDS = """
INSERT INTO consent_events (user_id, is_guest, purpose, granted, source, "timestamp")
SELECT user_id, false, 'terms', terms_accepted, 'earlier_record', "timestamp" FROM user_consents
UNION ALL
SELECT user_id, false, 'marketing', true, 'earlier_record', updated_at FROM user_consents WHERE marketing_consent
"""


def timestamp(name: str) -> sa.Column[Any]:
    """Return a `timestamptz` column with the default `now()`."""
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def identity() -> sa.Column[Any]:
    """Return the key of an append-only table."""
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)


def upgrade() -> None:
    """Add them, and start the history with the existing records."""
    op.create_table(
        "consent_notices",
        identity(),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("locale", sa.String(35), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        timestamp("published_at"),
        sa.Column("binding_from", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("version > 0", name="ck_consent_notices_version"),
        sa.CheckConstraint(
            "sha256 = encode(sha256(convert_to(\"text\", 'UTF8')), 'hex')", name="ck_consent_notices_sha256"
        ),
        sa.UniqueConstraint("purpose", "version", "locale", name="uq_consent_notices_purpose_version_locale"),
    )
    op.create_table(
        "consent_events",
        identity(),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("is_guest", sa.Boolean, nullable=False),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("granted", sa.Boolean, nullable=False),
        sa.Column("notice_id", sa.BigInteger),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("route", sa.String(128)),
        sa.Column("request_id", sa.String(64)),
        timestamp("timestamp"),
        sa.ForeignKeyConstraint(
            ["notice_id"], ["consent_notices.id"], name="fk_consent_events_notice_id_consent_notices"
        ),
    )
    op.create_index(
        "ix_consent_events_user_id_is_guest_purpose_id", "consent_events", ["user_id", "is_guest", "purpose", "id"]
    )
    op.create_table(
        "admin_audit",
        identity(),
        timestamp("timestamp"),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("act", sa.String(64), nullable=False),
        sa.Column("target", sa.String(255)),
        sa.Column("reason", sa.String(500)),
        sa.Column("request_id", sa.String(64)),
    )
    op.create_index("ix_admin_audit_actor_id", "admin_audit", ["actor", "id"])
    op.create_index("ix_admin_audit_target_id", "admin_audit", ["target", "id"])
    op.execute(EARLIER_RECORDS)
    for statement in (REFUSE_EVENT_CHANGE, REFUSE_AUDIT_CHANGE, REFUSE_CHANGE, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Remove them with their rows."""
    for table in ("admin_audit", "consent_events", "consent_notices"):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change(), refuse_admin_audit_change(), refuse_consent_event_change()")
