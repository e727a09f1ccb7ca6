"""The catalogue."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

SEARCHED = (
    "to_tsvector('english'::regconfig, "
    "translate(lower(%s), '-/_àáâãäåçèéêëìíîïñòóôõöùúûüýÿ', '   aaaaaaceeeeiiiinooooouuuuyy'))"
)
SEARCH_VECTOR = " || ".join(
    f"setweight({SEARCHED % content}, '{weight}')"
    for weight, content in (
        ("A", "title"),
        ("B", "coalesce(brand, '') || ' ' || coalesce(category, '')"),
        ("C", "coalesce(description, '')"),
    )
)


def upgrade() -> None:
    """Create the table; trigrams come from an extension that a database's owner may install."""
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.create_table(
        "products",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("source_id", sa.String(255), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("brand", sa.Text),
        sa.Column("category", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("price", sa.Numeric(12, 2)),
        sa.Column("currency", sa.String(3)),
        sa.Column("price_as_of", sa.Date),
        sa.Column("rating", sa.Numeric(3, 2)),
        sa.Column("rating_count", sa.Integer),
        sa.Column("attributes", postgresql.JSONB, nullable=False),
        sa.Column("link", sa.Text, nullable=False),
        sa.Column("words", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("search", postgresql.TSVECTOR, sa.Computed(SEARCH_VECTOR, persisted=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.UniqueConstraint("source", "source_id", name="uq_products_source_source_id"),
        sa.CheckConstraint("(price IS NULL) = (currency IS NULL)", name="ck_products_price_currency"),
        sa.CheckConstraint("price > 0", name="ck_products_price"),
        sa.CheckConstraint("rating BETWEEN 0 AND 5", name="ck_products_rating"),
    )
    op.create_index("ix_products_search", "products", ["search"], postgresql_using="gin")
    op.create_index("ix_products_words", "products", ["words"], postgresql_using="gin")
    op.create_index(
        "ix_products_title_trigram",
        "products",
        ["title"],
        postgresql_using="gin",
        postgresql_ops={"title": "gin_trgm_ops"},
    )
    op.create_index("ix_products_brand", "products", [sa.text("lower(coalesce(brand, ''))")])
    op.create_index("ix_products_category", "products", [sa.text("lower(coalesce(category, ''))"), "price", "currency"])
    op.create_index("ix_products_price", "products", ["price", "currency"])
    op.create_index("ix_products_currency", "products", ["currency"])
    op.create_index(
        "ix_products_rating",
        "products",
        [sa.text("rating DESC NULLS LAST"), sa.text("rating_count DESC NULLS LAST"), "id"],
    )


def downgrade() -> None:
    """Drop the table; the extension stays, since others may use it."""
    op.drop_table("products")
