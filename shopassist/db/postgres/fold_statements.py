"""The statements of retention."""

from sqlalchemy import text

# The ledger's trigger lets changes pass in a transaction that says so. Two folds of the same rows would wait for each
# other in a circle, so one at a time; whoever only adds to the ledger is not kept waiting.
ALLOW_FOLDING = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       pg_advisory_xact_lock(hashtextextended('shopassist.ledger_maintenance', 0))
""")

# A user's newest row that is old enough becomes the opening row of all before it. It takes their sum rather than its
# own balance_after: the sum of the ledger is then the same before and after, whatever a row says. The lateral part
# reads a few users through (user_id, id), never the table. A lone opening row has nothing to fold.
FOLD = text("""
WITH seen AS MATERIALIZED (
    SELECT id, user_id,
           "timestamp" < COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:age AS interval) AS is_old
    FROM credit_transactions WHERE id > CAST(:after_id AS bigint) ORDER BY id LIMIT CAST(:limit AS bigint)
), newest AS MATERIALIZED (
    SELECT user_id, max(id) AS id FROM seen WHERE is_old GROUP BY user_id
), folded AS MATERIALIZED (
    SELECT n.id, before.*
    FROM newest n CROSS JOIN LATERAL (
        SELECT array_agg(t.id) AS ids, sum(t.amount) AS total,
               count(*) FILTER (WHERE t.transaction_type <> 'opening') AS rows
        FROM credit_transactions t WHERE t.user_id = n.user_id AND t.id <= n.id
    ) AS before
    WHERE before.rows > 0
), opened AS (
    UPDATE credit_transactions t
    SET transaction_type = 'opening', amount = f.total, description = 'Balance of older transactions',
        operation_id = NULL, actor = NULL
    FROM folded f WHERE t.id = f.id AND f.total <> 0
), removed AS (
    DELETE FROM credit_transactions t
    WHERE t.id = ANY(ARRAY(
        SELECT u.id FROM folded f, unnest(f.ids) AS u(id) WHERE u.id <> f.id OR f.total = 0
    ))
)
SELECT (SELECT COALESCE(sum(rows), 0) FROM folded) AS folded,
       (SELECT max(id) FROM seen HAVING bool_or(is_old)) AS last_id
""")
