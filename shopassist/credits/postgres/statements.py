"""SQL of the credit ledger. Batches lock accounts first, in the order of their user ids.

A batch of requests binds an array for each field, with one element per request.
"""

from sqlalchemy import text

SELECT_ACCOUNTS = text("""
SELECT *, NOT is_guest AND last_reset_timestamp
              <= COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:interval AS interval) AS due
FROM user_credits WHERE user_id = ANY(CAST(:user_ids AS text[]))
""")

# Deducts from accounts that exist and are not due for a reset; other accounts are not in the result. `turn` numbers the
# requests of one user, which all have the same amount. Returns the accounts as they were before.
DEDUCT_CREDITS = text("""
WITH locked AS MATERIALIZED (
    SELECT c.*, m.instant
    FROM user_credits c, (SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant) AS m
    WHERE user_id = ANY(CAST(:user_id AS text[]))
      AND (is_guest OR last_reset_timestamp > m.instant - CAST(:interval AS interval))
    ORDER BY user_id FOR UPDATE OF c
), granted AS MATERIALIZED (
    SELECT r.*, l.instant, l.available_credits - r.turn * r.amount AS remaining, l.held_credits
    FROM unnest(CAST(:user_id AS text[]), CAST(:is_guest AS boolean[]), CAST(:amount AS bigint[]),
                CAST(:turn AS integer[]), CAST(:operation_id AS uuid[]), CAST(:description AS text[]))
             AS r(user_id, is_guest, amount, turn, operation_id, description)
         JOIN locked l USING (user_id)
    WHERE r.turn * r.amount <= l.available_credits AND (l.is_guest OR NOT r.is_guest)
), changed AS (
    UPDATE user_credits c SET available_credits = g.remaining, updated_at = g.instant
    FROM (SELECT user_id, min(remaining) AS remaining, max(instant) AS instant FROM granted GROUP BY user_id) AS g
    WHERE c.user_id = g.user_id
), ledger AS (
    INSERT INTO credit_transactions
        (user_id, transaction_type, amount, "timestamp", description, balance_after, operation_id)
    SELECT user_id, 'deduct', -amount, instant, description, remaining + held_credits, operation_id
    FROM granted ORDER BY user_id, turn
)
SELECT * FROM locked
""")

# Requests of one user in one call have the same amount, so that `turn * amount` is the total up to each of them. A hold
# is not inserted if its question or key is in progress or already answered. Answers are read from the snapshot, which
# may be older than the lock. Closing a hold changes its account, so if the locked version of the account is the one in
# the snapshot, all settlements are visible; otherwise `already_answered` is NULL and the caller must check the cache.
TAKE_CREDITS = text("""
WITH moment AS (SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant), locked AS MATERIALIZED (
    SELECT *, xmin AS version FROM user_credits WHERE user_id = ANY(CAST(:user_id AS text[]))
    ORDER BY user_id FOR UPDATE
), account AS (
    SELECT l.*, d.due, m.instant, f.allowance,
           CASE WHEN d.due THEN GREATEST(l.available_credits, f.allowance - l.held_credits)
                ELSE l.available_credits END AS refilled
    FROM locked l, moment m,
         LATERAL (SELECT NOT l.is_guest
                         AND l.last_reset_timestamp <= m.instant - CAST(:interval AS interval) AS due) AS d,
         LATERAL (SELECT CASE WHEN d.due THEN CAST(:registered_credits AS integer) ELSE l.max_credits END AS allowance)
             AS f
), asked AS MATERIALIZED (
    SELECT a.*, r.position, r.turn, r.operation_id, r.amount, r.is_hold, r.description, r.question_hash,
           r.idempotency_key, r.turn * r.amount <= a.refilled AND (a.is_guest OR NOT r.claims_guest) AS affordable,
           r.is_hold AND COALESCE(
               (SELECT true FROM query_cache q WHERE q.query_hash = r.question_hash AND q.expires_at >= a.instant),
               (SELECT true FROM idempotent_answers i
                WHERE i.user_id = r.user_id AND i.idempotency_key = r.idempotency_key AND i.expires_at >= a.instant),
               false) AS answered,
           (SELECT s.xmin FROM user_credits s WHERE s.user_id = r.user_id) IS DISTINCT FROM a.version AS is_unsure
    FROM (
        SELECT r.*, row_number() OVER (PARTITION BY r.user_id ORDER BY r.position) AS turn
        FROM unnest(CAST(:user_id AS text[]), CAST(:is_guest AS boolean[]), CAST(:amount AS integer[]),
                CAST(:operation_id AS uuid[]), CAST(:is_hold AS boolean[]), CAST(:description AS text[]),
                CAST(:question_hash AS text[]), CAST(:idempotency_key AS text[]))
         WITH ORDINALITY
         AS r(user_id, claims_guest, amount, operation_id, is_hold, description, question_hash, idempotency_key,
              position)
    ) AS r JOIN account a USING (user_id)
), held AS (
    INSERT INTO credit_holds (hold_id, user_id, amount, created_at, expires_at, question_hash, idempotency_key)
    SELECT operation_id, user_id, amount, instant, instant + CAST(:lifetime AS interval), question_hash, idempotency_key
    FROM asked WHERE affordable AND is_hold AND NOT answered ORDER BY user_id, turn
    ON CONFLICT DO NOTHING
    RETURNING hold_id
), outcome AS MATERIALIZED (
    SELECT *, sum(taken) OVER so_far AS spent, sum(taken) OVER altogether AS total,
           sum(taken) FILTER (WHERE is_hold) OVER altogether AS set_aside,
           turn = max(turn) OVER altogether AS is_last
    FROM (
        SELECT *, CASE WHEN granted THEN amount ELSE 0 END AS taken
        FROM (
            SELECT *, affordable AND (NOT is_hold OR operation_id IN (SELECT hold_id FROM held)) AS granted FROM asked
        ) AS g
    ) AS t
    WINDOW so_far AS (PARTITION BY user_id ORDER BY turn), altogether AS (PARTITION BY user_id)
), changed AS (
    UPDATE user_credits c
    SET available_credits = o.refilled - o.total, held_credits = o.held_credits + COALESCE(o.set_aside, 0),
        max_credits = o.allowance,
        last_reset_timestamp = CASE WHEN o.due THEN o.instant ELSE o.last_reset_timestamp END, updated_at = o.instant
    FROM outcome o
    WHERE c.user_id = o.user_id AND o.is_last AND (o.due OR o.total > 0)
), ledger AS (
    INSERT INTO credit_transactions
        (user_id, transaction_type, amount, "timestamp", description, balance_after, operation_id)
    SELECT e.user_id, e.transaction_type, e.amount, e.instant, e.description, e.balance_after, e.operation_id
    FROM (
        SELECT user_id, 0 AS turn, 'reset' AS transaction_type, refilled - available_credits AS amount, instant,
               'Periodic credit reset' AS description, refilled + held_credits AS balance_after,
               CAST(NULL AS uuid) AS operation_id
        FROM outcome WHERE is_last AND due AND refilled > available_credits
        UNION ALL
        SELECT user_id, turn, 'deduct', -amount, instant, description, refilled + held_credits - spent, operation_id
        FROM outcome WHERE granted AND NOT is_hold AND amount > 0
    ) AS e
    ORDER BY e.user_id, e.turn
)
SELECT position, granted, affordable AND NOT granted AND NOT answered AS is_in_progress,
       CASE WHEN granted AND is_hold AND is_unsure THEN NULL ELSE answered END AS already_answered,
       instant, user_id, is_guest, allowance AS max_credits, created_at,
       refilled - total AS available_credits, held_credits + COALESCE(set_aside, 0) AS held_credits,
       CASE WHEN due THEN instant ELSE last_reset_timestamp END AS last_reset_timestamp,
       CASE WHEN due OR total > 0 THEN instant ELSE updated_at END AS updated_at
FROM outcome
""")

CLOSE_HOLDS = text("""
WITH moment AS (SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant), request AS (
    SELECT * FROM unnest(CAST(:hold_ids AS uuid[]), CAST(:user_ids AS text[]), CAST(:settled AS boolean[]),
                         CAST(:descriptions AS text[]), CAST(:hashes AS text[]), CAST(:results AS jsonb[]),
                         CAST(:lifetimes AS interval[]), CAST(:keys AS text[]), CAST(:request_hashes AS text[]),
                         CAST(:responses AS jsonb[]))
        WITH ORDINALITY AS r(hold_id, user_id, is_settled, description, query_hash, result, lifetime, idempotency_key,
                             request_hash, response, position)
), locked AS MATERIALIZED (
    SELECT user_id, available_credits, held_credits FROM user_credits
    WHERE user_id = ANY(CAST(:user_ids AS text[])) ORDER BY user_id FOR UPDATE
), closed AS (
    DELETE FROM credit_holds h USING request r JOIN locked l ON l.user_id = r.user_id
    WHERE h.hold_id = r.hold_id AND h.user_id = r.user_id
    RETURNING h.amount AS held, r.*
), change AS (
    SELECT user_id, sum(held) AS total, COALESCE(sum(held) FILTER (WHERE NOT is_settled), 0) AS returned
    FROM closed GROUP BY user_id
), changed AS (
    UPDATE user_credits c
    SET available_credits = l.available_credits + g.returned, held_credits = l.held_credits - g.total,
        updated_at = m.instant
    FROM change g JOIN locked l USING (user_id), moment m WHERE c.user_id = g.user_id
), ledger AS (
    INSERT INTO credit_transactions
        (user_id, transaction_type, amount, "timestamp", description, balance_after, operation_id)
    SELECT c.user_id, 'deduct', -c.held, m.instant, c.description,
           l.available_credits + l.held_credits - sum(c.held) OVER (PARTITION BY c.user_id ORDER BY c.position),
           c.hold_id
    FROM closed c JOIN locked l USING (user_id), moment m WHERE c.is_settled ORDER BY c.user_id, c.position
), stored AS (
    INSERT INTO query_cache (query_hash, result, cached_at, expires_at)
    SELECT DISTINCT ON (c.query_hash) c.query_hash, c.result, m.instant, m.instant + c.lifetime
    FROM closed c, moment m WHERE c.query_hash IS NOT NULL ORDER BY c.query_hash, c.position DESC
    ON CONFLICT (query_hash) DO UPDATE
    SET result = excluded.result, cached_at = excluded.cached_at, expires_at = excluded.expires_at
), remembered AS (
    INSERT INTO idempotent_answers (user_id, idempotency_key, request_hash, response, expires_at)
    SELECT c.user_id, c.idempotency_key, c.request_hash, c.response, m.instant + CAST(:replay_lifetime AS interval)
    FROM closed c, moment m WHERE c.is_settled AND c.idempotency_key IS NOT NULL ORDER BY c.user_id, c.idempotency_key
    ON CONFLICT (user_id, idempotency_key) DO UPDATE
    SET request_hash = excluded.request_hash, response = excluded.response, expires_at = excluded.expires_at
)
SELECT hold_id FROM closed
""")

SELECT_OPEN_HOLDS = text("""
SELECT question_hash, idempotency_key FROM credit_holds WHERE user_id = :user_id AND question_hash = :question_hash
UNION
SELECT question_hash, idempotency_key FROM credit_holds
WHERE user_id = :user_id AND idempotency_key = CAST(:key AS text)
""")

SELECT_EXPIRED_HOLDS = text("""
SELECT hold_id, user_id FROM credit_holds
WHERE expires_at <= COALESCE(CAST(:instant AS timestamptz), now()) ORDER BY expires_at LIMIT :limit
""")

# The start time tells the process apart from a later one with the same pid, or from one of another server.
TERMINATE_BACKEND = text("""
SELECT pg_terminate_backend(pid, 800) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :began
""")

LOCK_ACCOUNTS = text("""
SELECT user_id FROM user_credits WHERE user_id = ANY(CAST(:user_ids AS text[])) ORDER BY user_id FOR UPDATE
""")

SELECT_COMMITTED_OPERATIONS = text("""
SELECT hold_id FROM credit_holds WHERE hold_id = ANY(CAST(:operation_ids AS uuid[]))
UNION ALL
SELECT operation_id FROM credit_transactions
WHERE user_id = ANY(CAST(:user_ids AS text[])) AND operation_id = ANY(CAST(:operation_ids AS uuid[]))
""")

# Refills accounts to `registered_credits`, never lowering a balance.
REFILL_TEMPLATE = """
WITH moment AS (SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant), locked AS MATERIALIZED (
    SELECT user_id, available_credits, held_credits,
           GREATEST(available_credits, CAST(:registered_credits AS integer) - held_credits) AS refilled
    FROM user_credits WHERE {condition}
), changed AS (
    UPDATE user_credits c
    SET available_credits = l.refilled, max_credits = CAST(:registered_credits AS integer), is_guest = false,
        last_reset_timestamp = m.instant, updated_at = m.instant
    FROM locked l, moment m WHERE c.user_id = l.user_id
    RETURNING c.user_id
), ledger AS (
    INSERT INTO credit_transactions (user_id, transaction_type, amount, "timestamp", description, balance_after)
    SELECT user_id, '{kind}', refilled - available_credits, m.instant, '{description}', refilled + held_credits
    FROM locked, moment m WHERE refilled > available_credits
)
SELECT count(*) FROM changed
"""

REGISTER_ACCOUNT = text(
    REFILL_TEMPLATE.format(
        condition="user_id = CAST(:user_id AS text) AND is_guest FOR UPDATE",
        kind="allocate",
        description="Credits of a registered user",
    )
)

RESET_ACCOUNT = text(
    REFILL_TEMPLATE.format(
        condition="NOT is_guest AND user_id = CAST(:user_id AS text) FOR UPDATE",
        kind="reset",
        description="Credit reset",
    )
)

# Locked rows are skipped: the call that has such an account locked resets it too.
RESET_DUE_ACCOUNTS = text(
    REFILL_TEMPLATE.format(
        condition="NOT is_guest AND last_reset_timestamp"
        " <= COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:interval AS interval)"
        " ORDER BY last_reset_timestamp LIMIT :limit FOR UPDATE SKIP LOCKED",
        kind="reset",
        description="Periodic credit reset",
    )
)

ADJUST_ACCOUNT = text("""
WITH moment AS (SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant), locked AS MATERIALIZED (
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
    SELECT r.*, m.instant, m.day
    FROM unnest(CAST(:user_id AS text[]), CAST(:is_guest AS boolean[]), CAST(:available_credits AS integer[]),
                CAST(:max_credits AS integer[]), CAST(:last_reset_timestamp AS timestamptz[]), CAST(:network AS text[]))
             AS r(user_id, is_guest, available_credits, max_credits, last_reset_timestamp, network),
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
    SELECT t.user_id, t.is_guest, t.available_credits, t.max_credits, t.last_reset_timestamp, t.instant, t.instant
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

DELETE_TEMPLATE = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE {column} < {limit} ORDER BY {column} LIMIT CAST(:limit AS bigint)
)) RETURNING true
"""

DELETE_OLD_GUEST_COUNTS = text(
    DELETE_TEMPLATE.format(
        table="guest_networks",
        column="day",
        limit="CAST(COALESCE(CAST(:instant AS timestamptz), now()) AT TIME ZONE 'UTC' AS date) - 1",
    )
)

DELETE_EXPIRED_IDEMPOTENT_ANSWERS = text(
    DELETE_TEMPLATE.format(
        table="idempotent_answers", column="expires_at", limit="COALESCE(CAST(:instant AS timestamptz), now())"
    )
)
