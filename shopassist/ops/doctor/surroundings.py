"""What is around the database: settings, backups and Redis."""

from datetime import UTC, datetime, timedelta

from shopassist.db.redis.link import link_to
from shopassist.errors import BackupError, StorageUnavailableError
from shopassist.ops.backup.configured import folder_of
from shopassist.ops.backup.manifest import dump_file, every, read
from shopassist.ops.doctor.finding import Deployment, Finding


async def settings(deployment: Deployment) -> Finding:
    """Nothing that is fit for development alone is left in production."""
    server, identity = deployment.settings.server, deployment.settings.identity
    if not deployment.guarded:
        return Finding("settings", f"ENVIRONMENT={server.environment}: the rules of production do not hold")
    wrong = {
        "SECRET_KEY is not set": identity.secret_key is None,
        "ALLOWED_HOSTS lets every name through": "*" in server.allowed_hosts,
        "no token issuer is set, so nobody can log in": not (identity.issuer and identity.audience),
        "DEBUG is on": server.debug,
        "SAMPLE_CATALOGUE is on": deployment.settings.fill_with_sample,
    }
    said = [what for what, is_wrong in wrong.items() if is_wrong]
    if not said and not server.trusted_proxies:
        return Finding("settings", "fit for production; behind a proxy, name it in TRUSTED_PROXIES")
    if not said:
        return Finding("settings", "fit for production")
    return Finding("settings", "; ".join(said), "Set them as the README's table of settings says.")


async def backups(deployment: Deployment) -> Finding:
    """The newest backup is young and whole as far as a look can tell."""
    if not deployment.guarded:
        return Finding("backups", "not looked at outside production")
    folder, longest = folder_of(deployment.settings), timedelta(hours=deployment.settings.backup.longest_age_hours)
    fix = "Run `shopassist backup create` on a schedule, or raise BACKUP_MAX_AGE_HOURS if something else backs up."
    names = every(folder)
    if not names:
        return Finding("backups", f"there is none in {folder}", fix)
    try:
        newest = read(folder, names[-1])
        size = dump_file(folder, newest.name).stat().st_size
    except (BackupError, OSError):
        return Finding("backups", f"the newest, {names[-1]}, is damaged", fix)
    age = datetime.now(UTC) - newest.created_at
    seen = f"{newest.name} is {age.total_seconds() / 3600:.1f} hours old"
    if size != newest.size:
        return Finding("backups", f"{newest.name} is cut off", fix)
    return Finding("backups", seen, fix if age > longest else None)


async def shared_cache(deployment: Deployment) -> Finding:
    """Redis answers, where it is to be asked."""
    link = link_to(deployment.settings.shared_cache_url)
    if link is None:
        return Finding("shared cache", "REDIS_URL is not set: every answer is read from the database")
    try:
        await link.ping()
    except StorageUnavailableError:
        seen = "Redis does not answer: answers are read from the database"
        return Finding("shared cache", seen, "Start it, put its address and password into REDIS_URL, or unset that.")
    finally:
        await link.close()
    return Finding("shared cache", "Redis answers")
