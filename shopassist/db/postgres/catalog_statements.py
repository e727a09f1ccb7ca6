"""The statements of the catalogue."""

from sqlalchemy import text

# One JSON parameter for any number of rows; sorted, so that two imports never wait for each other in a circle.
# A row that was there before carries the number of the transaction that replaces it in xmax, a new row has none.
UPSERT = text("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(cast(:products AS jsonb)) AS row(
            source text, source_id text, title text, brand text, category text, description text, price numeric,
            currency text, price_as_of date, rating numeric, rating_count int, attributes jsonb, link text, words text[]
        )
    ), written AS (
        INSERT INTO products AS stored (source, source_id,
            title, brand, category, description, price, currency, price_as_of, rating, rating_count,
            attributes, link, words
        )
        SELECT source, source_id,
            title, brand, category, description, price, currency, price_as_of, rating, rating_count,
            attributes, link, words
        FROM given ORDER BY source, source_id
        ON CONFLICT (source, source_id) DO UPDATE
        SET (
            title, brand, category, description, price, currency, price_as_of, rating, rating_count,
            attributes, link, words, updated_at
        ) = (SELECT
            excluded.title, excluded.brand, excluded.category, excluded.description, excluded.price,
            excluded.currency, excluded.price_as_of, excluded.rating, excluded.rating_count,
            excluded.attributes, excluded.link, excluded.words, now()
        )
        WHERE (
            stored.title, stored.brand, stored.category, stored.description, stored.price, stored.currency,
            stored.price_as_of, stored.rating, stored.rating_count, stored.attributes, stored.link, stored.words
        ) IS DISTINCT FROM (
            excluded.title, excluded.brand, excluded.category, excluded.description, excluded.price,
            excluded.currency, excluded.price_as_of, excluded.rating, excluded.rating_count,
            excluded.attributes, excluded.link, excluded.words
        )
        RETURNING stored.xmax = 0 AS inserted
    )
    SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM written
""")

# Every value of a column once, found by hopping through its index (models/catalog.py) from one value to the next.
CATEGORIES = text("""
    WITH RECURSIVE found AS (
        (
            SELECT lower(coalesce(category, '')) AS key, category AS spelled FROM products
            WHERE lower(coalesce(category, '')) > '' ORDER BY 1 LIMIT 1
        )
        UNION ALL
        SELECT later.key, later.spelled FROM found
        CROSS JOIN LATERAL (
            SELECT lower(coalesce(category, '')) AS key, category AS spelled FROM products
            WHERE lower(coalesce(category, '')) > found.key ORDER BY 1 LIMIT 1
        ) AS later
    )
    SELECT spelled FROM found
""")

BRANDS = text("""
    WITH RECURSIVE found AS (
        (
            SELECT lower(coalesce(brand, '')) AS key, brand AS spelled FROM products
            WHERE lower(coalesce(brand, '')) > '' ORDER BY 1 LIMIT 1
        )
        UNION ALL
        SELECT later.key, later.spelled FROM found
        CROSS JOIN LATERAL (
            SELECT lower(coalesce(brand, '')) AS key, brand AS spelled FROM products
            WHERE lower(coalesce(brand, '')) > found.key ORDER BY 1 LIMIT 1
        ) AS later
    )
    SELECT spelled FROM found
""")

CURRENCIES = text("""
    WITH RECURSIVE found AS (
        (SELECT currency AS key, currency AS spelled FROM products WHERE currency > '' ORDER BY 1 LIMIT 1)
        UNION ALL
        SELECT later.key, later.spelled FROM found
        CROSS JOIN LATERAL (
            SELECT currency AS key, currency AS spelled FROM products
            WHERE currency > found.key ORDER BY 1 LIMIT 1
        ) AS later
    )
    SELECT spelled FROM found
""")

# Lower than the default of 0.6: "iphnoe" and "iphone" share three of seven trigrams.
SPELLING_THRESHOLD = text("SELECT set_config('pg_trgm.word_similarity_threshold', '0.4', true)")
# Counted, for EXISTS tempts the planner to read the table until it meets the word, which a misspelt one never is.
KNOWN = text("SELECT count(*) FROM products WHERE words @> cast(:words AS text[])")
ALIKE = text("""
    SELECT title FROM products WHERE :word <% title ORDER BY word_similarity(:word, title) DESC LIMIT 20
""")
