"""The manifests of `deploy/kubernetes` are valid, and fit the product."""

from functools import cache
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from tests.support.helpers import get_setting_names
from tests.support.servers import PROJECT

FOLDER = PROJECT / "deploy" / "kubernetes"
VERSION = kubernetes_validate.latest_version()


def read(name: str) -> Any:
    """Return a parsed file of the folder."""
    return YAML(typ="safe").load((FOLDER / name).read_text())


@cache
def get_kustomization() -> Any:
    """Return the kustomization."""
    return read("kustomization.yaml")


def get_container(name: str) -> Any:
    """Return the only container of a workload."""
    [container] = read(name)["spec"]["template"]["spec"]["containers"]
    return container


def test_the_kustomization_lists_every_manifest() -> None:
    """No file is forgotten, and none is missing."""
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(get_kustomization()["resources"]) == files


@pytest.mark.parametrize("name", get_kustomization()["resources"])
def test_each_manifest_is_valid(name: str) -> None:
    """Against the schemas that Kubernetes publishes, which in strict mode refuse unknown fields."""
    kubernetes_validate.validate(read(name), VERSION, strict=True)


def test_settings_exist() -> None:
    """Each variable of the containers is a setting, or the file of one."""
    lines = (FOLDER / "settings.env").read_text().split()
    names = {line.split("=")[0] for line in lines}
    for workload in ("deployment.yaml", "migration-job.yaml"):
        names |= {variable["name"].removesuffix("_FILE") for variable in get_container(workload)["env"]}
    assert names - get_setting_names() == set()


def test_probes_and_shutdown_fit_the_server() -> None:
    """Liveness does not depend on the database, and pods get more time to stop than the server takes."""
    container = get_container("deployment.yaml")
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert read("deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > pause + 10


@pytest.mark.parametrize("name", ["deployment.yaml", "migration-job.yaml"])
def test_pods_run_with_few_rights(name: str) -> None:
    """The namespace enforces the profile `restricted`, so anything less would not start."""
    pod = read(name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = get_container(name)["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
