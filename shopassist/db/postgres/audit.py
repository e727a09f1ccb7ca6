"""Recomputing balances in PostgreSQL."""

from sqlalchemy import text

from shopassist.db.manager import DatabaseManager
from shopassist.db.postgres.driver import fetch_patiently
from shopassist.models.audit import AuditPage, Books

PAGE = text("""
SELECT count(*) AS accounts, max(user_id) AS last_user_id
FROM (SELECT user_id FROM user_credits WHERE user_id > CAST(:after AS text) ORDER BY user_id LIMIT :limit) AS page
""")

# One statement, so one snapshot: whatever happens meanwhile, it sees each debit, settlement or fold whole or not at
# all. `Books.drifts` has the rules; the last condition only spares sending what keeps them. Open holds are few.
AUDIT = text("""
WITH account AS (
    SELECT user_id, CAST(available_credits AS bigint) + held_credits AS balance, held_credits AS held
    FROM user_credits
    WHERE user_id > CAST(:after AS text) AND (CAST(:last AS text) IS NULL OR user_id <= CAST(:last AS text))
), ledger AS (
    SELECT user_id, sum(amount) AS total, (array_agg(balance_after ORDER BY id DESC))[1] AS newest
    FROM credit_transactions
    WHERE user_id > CAST(:after AS text) AND (CAST(:last AS text) IS NULL OR user_id <= CAST(:last AS text))
    GROUP BY user_id
), open_hold AS (
    SELECT user_id, sum(amount) AS total
    FROM credit_holds
    WHERE user_id > CAST(:after AS text) AND (CAST(:last AS text) IS NULL OR user_id <= CAST(:last AS text))
    GROUP BY user_id
)
SELECT user_id, a.balance, COALESCE(a.held, 0) AS held, COALESCE(l.total, 0) AS ledger, l.newest,
       COALESCE(h.total, 0) AS holds
FROM account a FULL JOIN ledger l USING (user_id) FULL JOIN open_hold h USING (user_id)
WHERE (a.balance IS DISTINCT FROM COALESCE(l.total, 0) OR COALESCE(a.held, 0) <> COALESCE(h.total, 0)
       OR l.newest <> l.total)
  AND NOT EXISTS (
      SELECT FROM erasures e
      WHERE e.finished_at IS NULL AND (e.user_id = COALESCE(a.user_id, l.user_id, h.user_id)
                                       OR e.pseudonym = COALESCE(a.user_id, l.user_id, h.user_id))
  )
ORDER BY user_id
""")

# While an account is erased its rows are on their way to a pseudonym: the two are one account then.
ERASING = text("""
SELECT e.pseudonym AS user_id, CAST(a.available_credits AS bigint) + a.held_credits AS balance,
       COALESCE(a.held_credits, 0) AS held, COALESCE(l.total, 0) AS ledger, l.newest, COALESCE(h.total, 0) AS holds
FROM erasures e LEFT JOIN user_credits a ON a.user_id = e.pseudonym
CROSS JOIN LATERAL (
    SELECT sum(amount) AS total, (array_agg(balance_after ORDER BY id DESC))[1] AS newest
    FROM credit_transactions WHERE user_id = e.user_id OR user_id = e.pseudonym
) AS l
CROSS JOIN LATERAL (SELECT sum(amount) AS total FROM credit_holds WHERE user_id = e.user_id) AS h
WHERE e.finished_at IS NULL AND e.had_account
ORDER BY e.pseudonym
""")


class PostgresLedgerAudit:
    """Implements `LedgerAudit`."""

    def __init__(self, manager: DatabaseManager) -> None:
        """Each statement is a transaction of its own."""
        self._manager = manager

    async def page(self, after_user_id: str = "", limit: int = 5000) -> AuditPage:
        [page] = await fetch_patiently(self._manager, PAGE, after=after_user_id, limit=limit)
        last = page["last_user_id"] if page["accounts"] == limit else None
        rows = list(await fetch_patiently(self._manager, AUDIT, after=after_user_id, last=last))
        if last is None:
            rows += await fetch_patiently(self._manager, ERASING)
        books = [
            Books(row["user_id"], row["balance"], row["held"], int(row["ledger"]), row["newest"], int(row["holds"]))
            for row in rows
        ]
        return AuditPage(page["accounts"], tuple(drift for one in books for drift in one.drifts()), last)
