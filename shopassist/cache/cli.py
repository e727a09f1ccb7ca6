"""`shopassist cache clear`: deletes all stored answers."""

from typing import Any

import typer

from shopassist.errors import StartupError
from shopassist.settings import Storage, read_settings

app = typer.Typer(no_args_is_help=True, help="Stored answers.")


@app.callback()
def refuse_rollout_storage() -> None:
    """Refuse during a rollout, because answers may be in the memory of the server."""
    if read_settings().storage.storage is Storage.ROLLOUT:
        raise StartupError("STORAGE=rollout: answers may be in the server's memory. Restart it, or end the rollout.")


@app.command()
def clear(context: typer.Context) -> None:
    """Delete all stored answers, also from Redis and the memory of running servers. They are found anew when asked."""

    async def clear_answers(services: Any) -> int:
        cache = services.query_cache_service()
        size: int = (await cache.get_cache_stats())["cache_size"]
        await cache.clear_cache()
        return size

    typer.echo(f"{context.obj.with_services(clear_answers):,} answers deleted")
