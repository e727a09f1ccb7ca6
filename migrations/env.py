"""How Alembic reaches the database: over asyncpg, all steps in one transaction, waiting for locks but briefly."""

import asyncio
from functools import partial

from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

import shopassist.models
from shopassist.db.manager import driver_link
from shopassist.db.tls import connect

assert shopassist.models  # noqa: S101 - imported for the tables it registers

attributes = context.config.attributes


def migrate(connection: Connection) -> None:
    """Run the steps that were asked for."""
    context.configure(connection=connection, target_metadata=SQLModel.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate() -> None:
    """Run the steps over a connection of their own."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=pool.NullPool,
        hide_parameters=True,
        connect_args={
            "async_creator_fn": partial(connect, driver_link(attributes["url"])),
            "server_settings": {"lock_timeout": attributes["lock_timeout"]},
        },
    )
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()


if attributes.get("connection") is not None:
    migrate(attributes["connection"])
else:
    asyncio.run(connect_and_migrate())
