"""Alembic environment: connects over asyncpg, one transaction per migration, with a short lock time-out."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

import shopassist.storage.postgres  # noqa: F401 - registers every table
from shopassist.db.connections import HostSelector
from shopassist.db.database import ADD_EXTENSION_SCHEMA, ISOLATION_SETTINGS

attributes = context.config.attributes


def migrate(connection: Connection) -> None:
    """Run the requested migrations."""
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate() -> None:
    """Open a connection and run the migrations on it."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=pool.NullPool,
        hide_parameters=True,
        connect_args={
            "async_creator_fn": HostSelector(attributes["url"]).connect,
            "server_settings": {**ISOLATION_SETTINGS, "lock_timeout": attributes["lock_timeout"]},
        },
    )
    async with engine.connect() as connection:
        await connection.execute(ADD_EXTENSION_SCHEMA, {"is_local": False})
        await connection.commit()
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(connect_and_migrate())
