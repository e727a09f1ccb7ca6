"""The statements that concern one account at a time, or all whose reset is due."""

from sqlalchemy import text

REGISTER = text("""
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

RESET = text("""
WITH moment AS (
    SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant
), locked AS MATERIALIZED (
    SELECT user_id, available_credits, held_credits, GREATEST(available_credits, max_credits - held_credits) AS refilled
    FROM user_credits WHERE user_id = CAST(:user_id AS text) AND NOT is_guest FOR UPDATE
), changed AS (
    UPDATE user_credits c
    SET available_credits = l.refilled, last_reset_timestamp = m.instant, updated_at = m.instant
    FROM locked l, moment m WHERE c.user_id = l.user_id
    RETURNING c.user_id
), ledger AS (
    INSERT INTO credit_transactions (user_id, transaction_type, amount, "timestamp", description, balance_after)
    SELECT user_id, 'reset', refilled - available_credits, m.instant, 'Credit reset', refilled + held_credits
    FROM locked, moment m WHERE refilled > available_credits
)
SELECT count(*) FROM changed
""")

# Skipping locked rows: an account that is in use right now is reset by that very touch.
RESET_DUE = text("""
WITH moment AS (
    SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS instant
), locked AS MATERIALIZED (
    SELECT user_id, available_credits, held_credits, GREATEST(available_credits, max_credits - held_credits) AS refilled
    FROM user_credits
    WHERE NOT is_guest
      AND last_reset_timestamp <= COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:interval AS interval)
    ORDER BY last_reset_timestamp LIMIT :limit FOR UPDATE SKIP LOCKED
), changed AS (
    UPDATE user_credits c
    SET available_credits = l.refilled, last_reset_timestamp = m.instant, updated_at = m.instant
    FROM locked l, moment m WHERE c.user_id = l.user_id
    RETURNING c.user_id
), ledger AS (
    INSERT INTO credit_transactions (user_id, transaction_type, amount, "timestamp", description, balance_after)
    SELECT user_id, 'reset', refilled - available_credits, m.instant, 'Periodic credit reset', refilled + held_credits
    FROM locked, moment m WHERE refilled > available_credits
)
SELECT count(*) FROM changed
""")

ADJUST = text("""
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
