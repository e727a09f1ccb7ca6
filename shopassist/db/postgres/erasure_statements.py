"""The statements of erasure.

Whoever opens an account shares the lock of its subject, and whoever erases or merges one has it alone: an account is
never opened by a statement that does not see the erasure it comes after.
"""

from sqlalchemy import text

SHARE_SUBJECTS = text("""
SELECT pg_advisory_xact_lock_shared(hashtextextended(subject_hash, 19)) FROM (
    SELECT DISTINCT subject_hash FROM unnest(CAST(:subjects AS text[])) AS s(subject_hash) ORDER BY subject_hash
) AS ordered
""")

LOCK_SUBJECTS = text("""
SELECT pg_advisory_xact_lock(hashtextextended(subject_hash, 19)) FROM (
    SELECT DISTINCT subject_hash FROM unnest(CAST(:subjects AS text[])) AS s(subject_hash) ORDER BY subject_hash
) AS ordered
""")

PAST = text("""
SELECT s.subject_hash, m.instant, COALESCE(e.is_erasing, false) AS is_erasing, e.erased_at, b.is_guest,
       b.available_credits, b.last_reset_timestamp, b.forget_at
FROM (SELECT DISTINCT subject_hash FROM unnest(CAST(:subjects AS text[])) AS u(subject_hash)) AS s
CROSS JOIN (SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant) AS m
CROSS JOIN LATERAL (
    SELECT bool_or(finished_at IS NULL) AS is_erasing, max(requested_at) AS erased_at
    FROM erasures WHERE subject_hash = s.subject_hash
) AS e
LEFT JOIN erased_balances b ON b.subject_hash = s.subject_hash AND b.forget_at > m.instant
""")

MOMENT = text("SELECT COALESCE(CAST(:instant AS timestamptz), now())")

# The triggers of tables that only grow let a transaction pass that says what it is about. A fold of the same rows
# would wait in a circle, so one at a time.
ALLOW = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       set_config('shopassist.erasing_user', CAST(:user_id AS text), true),
       pg_advisory_xact_lock(hashtextextended('shopassist.ledger_maintenance', 0))
""")

FORGET_BALANCES = text("""
DELETE FROM erased_balances WHERE subject_hash = ANY(ARRAY(
    SELECT subject_hash FROM erased_balances
    WHERE forget_at <= COALESCE(CAST(:instant AS timestamptz), now()) ORDER BY forget_at LIMIT :limit
))
""")

FORGET_ERASURES = text("""
DELETE FROM erasures WHERE id = ANY(ARRAY(
    SELECT id FROM erasures
    WHERE requested_at < COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:lifetime AS interval)
      AND finished_at IS NOT NULL
    ORDER BY requested_at, id LIMIT :limit
))
""")
