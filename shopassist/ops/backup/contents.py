"""What a database holds, counted in one snapshot."""

import asyncpg

from shopassist.db.postgres import ddl
from shopassist.ops.backup.manifest import Contents

TABLES = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1
"""
REVISION = "SELECT version_num FROM alembic_version"
LEDGER_SUM = "SELECT COALESCE(sum(amount), 0)::bigint FROM credit_transactions"
BALANCE_SUM = "SELECT COALESCE(sum(available_credits::bigint + held_credits), 0)::bigint FROM user_credits"


async def counted(connection: asyncpg.Connection) -> Contents:
    """What the database of `connection` holds. Raises what asyncpg raises."""
    names = [row["name"] for row in await connection.fetch(TABLES)]
    return Contents(
        revision=await connection.fetchval(REVISION),
        rows={name: await ddl.value(connection, "SELECT count(*) FROM %s", name) for name in names},
        ledger_sum=await connection.fetchval(LEDGER_SUM),
        balance_sum=await connection.fetchval(BALANCE_SUM),
    )


def differences(expected: Contents, found: Contents) -> list[str]:
    """What is not as expected, a phrase each."""
    pairs = {
        what: (getattr(expected, what), getattr(found, what)) for what in ("revision", "ledger_sum", "balance_sum")
    }
    for table in sorted(expected.rows.keys() | found.rows.keys()):
        pairs[f"rows in {table}"] = expected.rows.get(table), found.rows.get(table)
    return [f"{what}: {is_} instead of {should}" for what, (should, is_) in pairs.items() if is_ != should]
