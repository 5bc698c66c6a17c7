"""Listing many plugins imports no plugin class."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = 30
PLUGIN = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("{name}", "{name}_heavy.rewards:Good")
"""
HEAVY = """
import pathlib
pathlib.Path({marks!r}, __name__).touch()
from unirl.rewards import Reward

class Good(Reward):
    '''Good.'''

    def score(self, examples, images, answers): ...
"""


@pytest.fixture
def many_packages(tmp_path: Path, standins) -> Path:
    """A folder of thirty installed packages whose classes create a file when they are imported."""
    (tmp_path / "marks").mkdir()
    for i in range(COUNT):
        name = f"pack{i}"
        standins.install(tmp_path, name, PLUGIN.format(name=name))
        heavy = tmp_path / f"{name}_heavy"
        heavy.mkdir()
        for module in ("__init__", "rewards"):
            (heavy / f"{module}.py").write_text(HEAVY.format(marks=str(tmp_path / "marks")))
    return tmp_path


def test_listing_thirty_packages_imports_none_of_their_classes(many_packages: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(many_packages), os.environ.get("PYTHONPATH", "")])}

    def unirl(*command: str) -> str:
        line = (sys.executable, "-c", "from unirl.cli.main import main; main()", *command)
        return subprocess.run(
            line, env=environment, cwd=many_packages, capture_output=True, text=True, check=True
        ).stdout

    listed = {plugin["name"]: plugin for plugin in json.loads(unirl("plugins", "--json"))}
    assert [listed[f"pack{i}"]["status"] for i in range(COUNT)] == ["loaded"] * COUNT
    assert "pack7" in unirl("plugins")
    assert "Good." in unirl("plugins", "show", "pack7")
    assert "fit" in unirl("--help")
    assert not list((many_packages / "marks").iterdir())
