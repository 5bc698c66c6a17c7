"""What the packages say about themselves agrees with what they are, and with each other."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import unirl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))]
each = pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
"""Of the host and the plugins."""

BORROWED = {"pytest"}
"""What is imported by those only who installed it for this: `unirl.testing`."""


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def imported(folder: Path) -> set[str]:
    """Top-level packages that the sources of a package import, wherever in a file."""
    found = set()
    for file in (folder / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {path.name for path in (folder / "src").iterdir()}


@each
def test_what_is_imported_is_declared(folder: Path) -> None:
    said = project(folder)
    optional = said.get("optional-dependencies", {}).get("lora", [])
    declared = {canonicalize_name(Requirement(line).name) for line in [*said["dependencies"], *optional]}
    # griffe 2 keeps its package in a distribution of its own, which griffe requires.
    provides = {**packages_distributions(), "unirl": ["lightning-unirl"], "griffe": ["griffe"]}
    for name in imported(folder) - BORROWED:
        by = {canonicalize_name(distribution) for distribution in provides.get(name, [name])}
        assert by & declared, f"{folder.name} imports {name}, of {by}, and does not declare it"


@each
def test_the_license_goes_with_the_package(folder: Path) -> None:
    assert project(folder)["license"] == "Apache-2.0"
    assert (folder / "LICENSE").read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")


def test_the_version_is_in_one_place() -> None:
    assert project(ROOT)["dynamic"] == ["version"]
    assert "version" not in project(ROOT)
    (written,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "src/unirl/__init__.py").read_text("utf-8"), re.M)
    assert written == unirl.__version__
    assert f"## {unirl.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_addresses_agree() -> None:
    urls = project(ROOT)["urls"]
    for folder in PROJECTS[1:]:
        assert project(folder)["urls"] == urls | {"Homepage": f"{urls['Repository']}/tree/main/plugins/{folder.name}"}
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^(?:repository-code|url): (.+)$", citation, re.M) == [urls["Repository"], urls["Documentation"]]
