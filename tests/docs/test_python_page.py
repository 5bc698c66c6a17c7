"""The code of docs/python.md runs as it stands, and a notebook's user needs nothing but `import unirl`."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import unirl

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LESS = {"prompts_per_step=6": "prompts_per_step=2", "num_prompts=60": "num_prompts=12"}
"""Sizes of training and evaluation, which take most of the page's time, and those of the test."""


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    code = "\n".join(BLOCKS)
    for size, less in LESS.items():
        assert size in code
        code = code.replace(size, less)
    exec(code, names)
    assert names["pixels"].shape == (8, 3, 64, 64)
    assert names["scores"].shape == (8,)
    assert names["trainer"].global_step == 4
    assert re.search(r"^generation [01]\.\d\d, understanding [01]\.\d\d$", capsys.readouterr().out, re.MULTILINE)
    assert {path.name for path in tmp_path.iterdir()} == {"images.png", "pretrained"}
    saved = unirl.load("backbone", "showo", checkpoint=str(tmp_path / "pretrained"))
    saved.build()
    assert sum(p.numel() for p in saved.parameters()) == sum(p.numel() for p in names["backbone"].parameters())


def test_the_example_of_the_readme_runs() -> None:
    code = re.search(r"```python\n(import unirl\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(code[1], names)
    assert len(names["images"]) == 1
    assert names["answers"].text[0]


def test_the_page_imports_public_names_only() -> None:
    code = "\n".join(BLOCKS)
    imported = {
        alias.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported == {"lightning", "torch", "unirl"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(code)))
    assert set(re.findall(r"unirl\.(\w+)\(", PAGE)) <= set(unirl.__all__)
