"""SQL that creates, resets and adjusts accounts, and compacts their old transactions."""

from sqlalchemy import text

REGISTER_ACCOUNT = text("""
WITH moment AS (
    SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant
), locked AS MATERIALIZED (
    SELECT user_id, available_credits, held_credits,
           GREATEST(available_credits, CAST(:credits AS integer) - held_credits) AS filled
    FROM user_credits WHERE user_id = CAST(:user_id AS text) AND is_guest FOR UPDATE
), changed AS (
    UPDATE user_credits c
    SET is_guest = false, available_credits = l.filled, max_credits = CAST(:credits AS integer),
        last_reset_timestamp = m.instant, updated_at = m.instant
    FROM locked l, moment m WHERE c.user_id = l.user_id
)
INSERT INTO credit_transactions (user_id, transaction_type, amount, "timestamp", description, balance_after)
SELECT user_id, 'allocate', filled - available_credits, m.instant, 'Credits of a registered user', filled + held_credits
FROM locked, moment m WHERE filled > available_credits
""")

RESET_TEMPLATE = """
WITH moment AS (
    SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant
), locked AS MATERIALIZED (
    SELECT user_id, available_credits, held_credits, GREATEST(available_credits, max_credits - held_credits) AS refilled
    FROM user_credits WHERE NOT is_guest AND {condition}
), changed AS (
    UPDATE user_credits c
    SET available_credits = l.refilled, last_reset_timestamp = m.instant, updated_at = m.instant
    FROM locked l, moment m WHERE c.user_id = l.user_id
    RETURNING c.user_id
), ledger AS (
    INSERT INTO credit_transactions (user_id, transaction_type, amount, "timestamp", description, balance_after)
    SELECT user_id, 'reset', refilled - available_credits, m.instant, '{description}', refilled + held_credits
    FROM locked, moment m WHERE refilled > available_credits
)
SELECT count(*) FROM changed
"""

RESET_ACCOUNT = text(
    RESET_TEMPLATE.format(condition="user_id = CAST(:user_id AS text) FOR UPDATE", description="Credit reset")
)

# Locked rows are skipped: the call that has such an account locked resets it too.
RESET_DUE_ACCOUNTS = text(
    RESET_TEMPLATE.format(
        condition="last_reset_timestamp <= COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:interval AS interval)"
        " ORDER BY last_reset_timestamp LIMIT :limit FOR UPDATE SKIP LOCKED",
        description="Periodic credit reset",
    )
)

ADJUST_ACCOUNT = text("""
WITH moment AS (
    SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant
), locked AS MATERIALIZED (
    SELECT * FROM user_credits WHERE user_id = CAST(:user_id AS text) FOR UPDATE
), fitting AS (
    SELECT l.*, l.available_credits + CAST(:amount AS bigint) AS adjusted FROM locked l
    WHERE l.available_credits + CAST(:amount AS bigint) BETWEEN 0 AND 2147483647 - l.held_credits
), claimed AS (
    INSERT INTO idempotent_answers AS a (user_id, idempotency_key, request_hash, response, expires_at)
    SELECT CAST(:actor AS text), CAST(:idempotency_key AS text), CAST(:request_hash AS text),
           jsonb_build_object('user_id', f.user_id, 'amount', CAST(:amount AS integer),
                              'reason', CAST(:reason AS text), 'actor', CAST(:actor AS text),
                              'available_credits', f.adjusted, 'max_credits', f.max_credits),
           m.instant + CAST(:replay_lifetime AS interval)
    FROM fitting f, moment m WHERE CAST(:idempotency_key AS text) IS NOT NULL
    ON CONFLICT (user_id, idempotency_key) DO UPDATE
    SET request_hash = excluded.request_hash, response = excluded.response, expires_at = excluded.expires_at
    WHERE a.expires_at < COALESCE(CAST(:instant AS timestamptz), now())
    RETURNING a.idempotency_key
), changed AS (
    UPDATE user_credits c SET available_credits = f.adjusted, updated_at = m.instant
    FROM fitting f, moment m
    WHERE c.user_id = f.user_id AND (CAST(:idempotency_key AS text) IS NULL OR EXISTS (SELECT FROM claimed))
    RETURNING c.*
), ledger AS (
    INSERT INTO credit_transactions
        (user_id, transaction_type, amount, "timestamp", description, balance_after, operation_id, actor)
    SELECT user_id, 'adjust', CAST(:amount AS integer), updated_at, CAST(:reason AS text),
           available_credits + held_credits, CAST(:operation_id AS uuid), CAST(:actor AS text)
    FROM changed
), audited AS (
    INSERT INTO admin_audit ("timestamp", actor, act, target, reason, request_id)
    SELECT updated_at, CAST(:actor AS text), CAST(:act AS text), user_id, CAST(:reason AS text),
           CAST(:request_id AS text)
    FROM changed
)
SELECT * FROM changed
""")

# Each user id occurs once. All new guests of a network are counted first; as many of them get an account as the limit
# leaves, other users always do. Returns the number of guests counted without a created account, to be subtracted
# again. A network at its limit is found in the snapshot, as a day's count only grows, so that a refusal writes nothing.
INSERT_ACCOUNTS = text("""
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

DECREMENT_GUEST_COUNT = text("""
UPDATE guest_networks SET accounts = GREATEST(accounts - CAST(:spare AS integer), 0)
WHERE day = CAST(:day AS date) AND network = CAST(:network AS text)
""")

SELECT_EXISTING_ACCOUNTS = text("SELECT user_id FROM user_credits WHERE user_id = ANY(CAST(:user_ids AS text[]))")

DELETE_OLD_GUEST_COUNTS = text("""
WITH deleted AS (
    DELETE FROM guest_networks WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM guest_networks
        WHERE day < CAST(COALESCE(CAST(:instant AS timestamptz), now()) AT TIME ZONE 'UTC' AS date) - 1
        ORDER BY day LIMIT CAST(:limit AS bigint)
    ))
    RETURNING day
)
SELECT count(*) FROM deleted
""")

# The ledger's trigger allows changes in a transaction with this setting. The lock admits one compaction at a time: two
# of the same rows would deadlock. Transactions that only add rows do not wait for it.
ALLOW_COMPACTION = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       pg_advisory_xact_lock(hashtextextended('shopassist.ledger_maintenance', 0))
""")

# A user's newest row that is old enough becomes the opening row of all rows up to it. Its amount is their sum rather
# than its own balance_after, so that the sum of the ledger does not change even if a balance_after is wrong. The join
# reads a few users through (user_id, id), never the whole table. A lone opening row is not compacted again.
COMPACT_TRANSACTIONS = text("""
WITH batch AS MATERIALIZED (
    SELECT id, user_id,
           "timestamp" < COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:age AS interval) AS is_old
    FROM credit_transactions WHERE id > CAST(:after_id AS bigint) ORDER BY id LIMIT CAST(:limit AS bigint)
), last_old AS MATERIALIZED (
    SELECT user_id, max(id) AS id FROM batch WHERE is_old GROUP BY user_id
), compacted AS MATERIALIZED (
    SELECT n.id, before.*
    FROM last_old n CROSS JOIN LATERAL (
        SELECT array_agg(t.id) AS ids, sum(t.amount) AS total,
               count(*) FILTER (WHERE t.transaction_type <> 'opening') AS rows
        FROM credit_transactions t WHERE t.user_id = n.user_id AND t.id <= n.id
    ) AS before
    WHERE before.rows > 0
), opened AS (
    UPDATE credit_transactions t
    SET transaction_type = 'opening', amount = c.total, description = 'Balance of older transactions',
        operation_id = NULL, actor = NULL
    FROM compacted c WHERE t.id = c.id AND c.total <> 0
), removed AS (
    DELETE FROM credit_transactions t
    WHERE t.id = ANY(ARRAY(
        SELECT u.id FROM compacted c, unnest(c.ids) AS u(id) WHERE u.id <> c.id OR c.total = 0
    ))
)
SELECT (SELECT COALESCE(sum(rows), 0) FROM compacted) AS compacted,
       (SELECT max(id) FROM batch HAVING bool_or(is_old)) AS last_id
""")

LOCK_TEMPLATE = """
SELECT {function}(hashtextextended(subject_hash, 19)) FROM (
    SELECT DISTINCT subject_hash FROM unnest(CAST(:subjects AS text[])) AS s(subject_hash) ORDER BY subject_hash
) AS ordered
"""
LOCK_SUBJECTS = text(LOCK_TEMPLATE.format(function="pg_advisory_xact_lock"))
LOCK_SUBJECTS_SHARED = text(LOCK_TEMPLATE.format(function="pg_advisory_xact_lock_shared"))

SELECT_ERASURE_HISTORY = text("""
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
