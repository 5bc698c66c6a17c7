"""The examples in docstrings give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

from unirl.testing.pretend import is_supported

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "src", *sorted(ROOT.glob("plugins/*/src"))]
FILES = [(path, root) for root in SOURCES for path in sorted(root.rglob("*.py")) if ">>> " in path.read_text("utf-8")]
MODULES = [".".join(path.relative_to(root).with_suffix("").parts) for path, root in FILES]
PRETEND = ("unirl.testing.devices", "unirl.testing.pretend")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    if name in PRETEND and not is_supported():
        pytest.skip("this PyTorch has no Python backend for PrivateUse1")
    found = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert found.attempted
    assert not found.failed
