"""Lint and types are part of the tests, so that one command checks everything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl.cli.new import PACKAGES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_lint(command: str) -> None:
    run("ruff", *command.split(), ".")


def test_types(tmp_path: Path) -> None:
    """Also those of the packages that `unirl new` writes, which are held to `--strict`."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    strict = config["overrides"][0]["module"]
    for kind in PACKAGES:
        main(["new", kind, f"new-{kind}", "--into", str(tmp_path)])
        assert f"unirl_new_{kind}.*" in strict
    names = [*config["packages"], *(f"unirl_new_{kind}" for kind in PACKAGES)]
    sources = [str(path) for path in tmp_path.glob("*/src")]
    path = os.pathsep.join([*sources, *filter(None, [os.environ.get("MYPYPATH"), os.environ.get("PYTHONPATH")])])
    run("mypy", *(word for name in names for word in ("-p", name)), MYPYPATH=path)
