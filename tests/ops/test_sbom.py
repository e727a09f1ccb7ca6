"""The software bill of materials names every package that the product runs with."""

import json
import re
import subprocess

from tests.support.servers import PROJECT


def test_sbom_lists_all_requirements() -> None:
    """`make sbom` writes CycloneDX with the pinned versions."""
    subprocess.run(["make", "sbom"], cwd=PROJECT, check=True, capture_output=True)
    document = json.loads((PROJECT / "build" / "sbom.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    listed = {(part["name"], part["version"]) for part in document["components"]}
    pinned = re.findall(r"^([\w.-]+)==([\w.]+)", (PROJECT / "requirements" / "base.txt").read_text(), re.MULTILINE)
    assert set(pinned) == listed
