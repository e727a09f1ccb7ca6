"""compose.yaml publishes no more than necessary, and its services are pinned and limited."""

import re
from typing import Any

import pytest

from tests.support.compose import compose, services
from tests.support.helpers import get_setting_names
from tests.support.servers import PROJECT

PUBLISHED = {"app", "nginx", "grafana"}
STORING = {"database", "standby", "pgbouncer", "redis", "provision", "replication", "synchronous", "backup"}
INTERNAL = {"storage", "monitoring", "front"}
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.]+)?")


def part_of(name: str) -> Any:
    """Return a service."""
    return compose()["services"][name]


def test_profiles_have_what_they_are_for() -> None:
    """Default: the app and its database; scale: two apps and what they share; observe: Prometheus and Grafana."""
    assert set(services(None)) == {"app", "database", "provision"}
    shared = {"replication", "standby", "synchronous", "pgbouncer", "redis"}
    assert set(services("scale")) == {"app-1", "app-2", "nginx"} | shared
    assert set(services("observe")) == {"prometheus", "grafana"}
    assert set(services("backup")) == {"backup"}
    assert set(compose()["services"]) == {
        name for one in (None, "scale", "observe", "backup") for name in services(one)
    }


def test_only_doors_are_published_and_on_this_machine_alone() -> None:
    """By default."""
    published = {name: part["ports"] for name, part in compose()["services"].items() if "ports" in part}
    assert set(published) == PUBLISHED
    for [port] in published.values():
        assert re.match(r"(\$\{\w+:-)?127\.0\.0\.1:", port)


def test_databases_are_on_an_internal_network() -> None:
    """They are on no other network; only published services and the apps have a way out."""
    networks = compose()["networks"]
    assert {name for name, network in networks.items() if (network or {}).get("internal")} == INTERNAL
    assert {name for name, part in compose()["services"].items() if "storage" in part["networks"]} == STORING | {
        "app",
        "app-1",
        "app-2",
    }
    for name in STORING:
        assert part_of(name)["networks"] == ["storage"]
    assert set(part_of("nginx")["networks"]) == {"front", "public"}


def test_apps_believe_nginx_and_nobody_else() -> None:
    """The trusted address is nginx's, nginx uses the apps' addresses, and Prometheus finds both."""
    at = part_of("nginx")["networks"]["front"]["ipv4_address"]
    asks = (PROJECT / "deploy/scale/nginx/nginx.conf").read_text()
    for name in ("app-1", "app-2"):
        app = part_of(name)
        assert app["environment"]["TRUSTED_PROXIES"] == f"{at}/32"
        assert f"server {app['networks']['front']['ipv4_address']}:8000 " in asks
        assert app["networks"]["monitoring"] == {"aliases": ["app"]}


def test_apps_get_every_setting() -> None:
    """What the README lists has an effect from `.env`, but for what the image and the services themselves determine."""
    fixed = {"API_HOST", "API_PORT", "SHOPASSIST_DATA"}
    roles = {name for name in get_setting_names() if re.fullmatch(r"DB_(OWNER|APP|READ)_(ROLE|PASSWORD)", name)}
    for name in ("app", "app-1", "app-2", "backup"):
        passed = part_of(name)["environment"]
        administrators = {"DATABASE_ADMIN_URL"} if name != "backup" else set()
        assert get_setting_names() - passed.keys() == fixed | roles | administrators
        assert passed.keys() <= get_setting_names()


def test_backups_last() -> None:
    """The folder of backups is a volume, not the memory that a container loses."""
    for name in ("app", "app-1", "app-2", "backup"):
        assert f"backups:{part_of(name)['environment']['BACKUP_FOLDER']}" in part_of(name)["volumes"]
    assert "backups" in compose()["volumes"]


@pytest.mark.parametrize("name", compose()["services"])
def test_each_service_is_pinned_and_bounded(name: str) -> None:
    """Images have a version, mounts exist and are read-only, and resources and privileges are limited."""
    part = part_of(name)
    assert PINNED.fullmatch(part["image"]) or part["image"] == "shopassist:latest"  # built locally
    for volume in part.get("volumes", ()):
        source, _, mode = volume.split(":") if volume.startswith(".") else (".", "", "ro")
        assert (PROJECT / source).exists()
        assert mode == "ro"
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    assert part["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert part["logging"] == {"driver": "local"}
