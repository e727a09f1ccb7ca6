"""Restricted tables: no role but the owner may write into records that only grow.

Default privileges of roles that existed before the first migration covered these tables too.
"""

from alembic import op

revision = "0014"
down_revision = "0013"

RESTRICT = """
DO $$
DECLARE excess record;
BEGIN
    FOR excess IN
        SELECT c.oid::regclass AS relation, a.privilege_type AS privilege,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
        FROM (VALUES
            ('alembic_version', '{INSERT,UPDATE,DELETE,TRUNCATE,MAINTAIN}'::text[]),
            ('consent_notices', '{UPDATE,DELETE,TRUNCATE}'),
            ('consent_events', '{UPDATE,TRUNCATE}'),
            ('admin_audit', '{DELETE,TRUNCATE}')
        ) AS restricted (name, privileges)
        JOIN pg_class c ON c.oid = to_regclass(format('public.%I', restricted.name))
        CROSS JOIN aclexplode(c.relacl) AS a
        WHERE a.grantee <> c.relowner AND a.privilege_type = ANY (restricted.privileges)
    LOOP
        EXECUTE format('REVOKE %s ON %s FROM %s', excess.privilege, excess.relation, excess.grantee);
    END LOOP;
END $$
"""


def upgrade() -> None:
    """Revoke what exceeds the rights that `shopassist db provision` grants."""
    op.execute(RESTRICT)


def downgrade() -> None:
    """Keep the rights: the previous version needs no more."""
