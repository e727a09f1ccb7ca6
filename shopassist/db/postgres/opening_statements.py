"""The statements that open accounts, and count new guests for the networks they come from."""

from sqlalchemy import text

# Of accounts that are each named once; what an erased one had left may be nothing, which is no row of the ledger.
# Of those who ask and have no account yet: a network's guests are counted first, all of them, and as many get theirs as
# were left of its most; other callers get theirs anyway. What was counted in vain is in the answer. That a network has
# had its most shows in the snapshot already, since a day's count only grows: refusals write nothing.
OPEN = text("""
WITH moment AS (
    SELECT i.instant, CAST(i.instant AT TIME ZONE 'UTC' AS date) AS day
    FROM (SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant) AS i
), asked AS MATERIALIZED (
    SELECT r.user_id, r.is_guest, r.credits, r.most, r.last_reset, r.network, m.instant, m.day
    FROM unnest(CAST(:user_ids AS text[]), CAST(:guests AS boolean[]), CAST(:credits AS integer[]),
                CAST(:most AS integer[]), CAST(:resets AS timestamptz[]), CAST(:networks AS text[]))
             AS r(user_id, is_guest, credits, most, last_reset, network),
         moment m
    WHERE NOT EXISTS (SELECT FROM user_credits c WHERE c.user_id = r.user_id)
    ORDER BY r.user_id
), counted AS (
    INSERT INTO guest_networks AS g (day, network, accounts)
    SELECT a.day, a.network, count(*) FROM asked a
    WHERE a.network IS NOT NULL AND COALESCE(
        (SELECT f.accounts FROM guest_networks f WHERE f.day = a.day AND f.network = a.network), 0
    ) < CAST(:guests_per_network AS integer)
    GROUP BY a.day, a.network ORDER BY a.day, a.network
    ON CONFLICT (day, network) DO UPDATE SET accounts = g.accounts + excluded.accounts
    WHERE g.accounts < CAST(:guests_per_network AS integer)
    RETURNING day, network, accounts
), turns AS (
    SELECT a.*, row_number() OVER (PARTITION BY a.network ORDER BY a.user_id) AS turn,
           count(*) OVER (PARTITION BY a.network) AS together
    FROM asked a
), created AS (
    INSERT INTO user_credits
        (user_id, is_guest, available_credits, max_credits, last_reset_timestamp, created_at, updated_at)
    SELECT t.user_id, t.is_guest, t.credits, t.most, COALESCE(t.last_reset, t.instant), t.instant, t.instant
    FROM turns t LEFT JOIN counted n USING (network)
    WHERE t.network IS NULL OR n.accounts - t.together + t.turn <= CAST(:guests_per_network AS integer)
    ORDER BY t.user_id
    ON CONFLICT (user_id) DO NOTHING
    RETURNING user_id, available_credits, created_at
), ledger AS (
    INSERT INTO credit_transactions (user_id, transaction_type, amount, "timestamp", description, balance_after)
    SELECT user_id, 'allocate', available_credits, created_at, 'Initial credits', available_credits FROM created
    WHERE available_credits > 0
)
SELECT n.day, n.network, count(*) - count(c.user_id) AS spare
FROM counted n JOIN asked a USING (network) LEFT JOIN created c ON c.user_id = a.user_id
GROUP BY n.day, n.network HAVING count(*) > count(c.user_id)
""")

GIVE_BACK = text("""
UPDATE guest_networks SET accounts = GREATEST(accounts - CAST(:spare AS integer), 0)
WHERE day = CAST(:day AS date) AND network = CAST(:network AS text)
""")

THERE = text("SELECT user_id FROM user_credits WHERE user_id = ANY(CAST(:user_ids AS text[]))")

FORGET = text("""
WITH gone AS (
    DELETE FROM guest_networks WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM guest_networks
        WHERE day < CAST(COALESCE(CAST(:instant AS timestamptz), now()) AT TIME ZONE 'UTC' AS date) - 1
        ORDER BY day LIMIT CAST(:limit AS bigint)
    ))
    RETURNING day
)
SELECT count(*) FROM gone
""")
