"""Plugins import the public API only: our packages, the packages that `unirl new` writes, the examples of the docs."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from unirl.cli.new import PACKAGES, Package, render

ROOT = Path(__file__).parents[2]
PUBLIC = {
    "unirl",
    "unirl.backbones",
    "unirl.backbones.janus",
    "unirl.backbones.showo",
    "unirl.benchmark",
    "unirl.callbacks",
    "unirl.functional",
    "unirl.judges",
    "unirl.metrics",
    "unirl.prompts",
    "unirl.rewards",
    "unirl.sampling",
    "unirl.testing",
    "unirl.training",
    "unirl.updates",
}
"""The packages whose `__all__` is the public API."""


def violations(source: str, origin: str) -> Iterator[str]:
    """Imports of unirl that are not public, one line each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_ours(alias.name) and alias.name not in PUBLIC:
                    yield f"{origin}:{node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _is_ours(node.module or ""):
            for alias in node.names:
                if not _is_public(node.module or "", alias.name):
                    yield f"{origin}:{node.lineno}: from {node.module} import {alias.name}"


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "unirl"


def _is_public(module: str, name: str) -> bool:
    if f"{module}.{name}" in PUBLIC:
        return True
    return module in PUBLIC and name in getattr(import_module(module), "__all__", ())


def python_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Line and source of each Python example of a Markdown page."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^( *)```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        lines = [line.removeprefix(match[1]) for line in match[2].splitlines()]
        yield text[: match.start()].count("\n") + 1, "\n".join(lines)


def check(found: list[str]) -> None:
    assert not found, "not public (use a package of PUBLIC, and a name of its __all__):\n" + "\n".join(found)


def test_our_plugins_import_the_public_api_only() -> None:
    files = sorted((ROOT / "plugins").glob("*/src/**/*.py"))
    assert files
    check([one for file in files for one in violations(file.read_text("utf-8"), str(file.relative_to(ROOT)))])


def test_scaffolded_packages_import_the_public_api_only() -> None:
    found = []
    for kind in PACKAGES:
        files = render(Package(kind, "demo", Path("unirl-demo")))
        sources = {path: text for path, text in files.items() if path.endswith(".py")}
        assert len(sources) > 2
        found += [one for path, text in sources.items() for one in violations(text, f"unirl new {kind}: {path}")]
    check(found)


def test_examples_of_the_docs_import_the_public_api_only() -> None:
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for line, source in python_blocks(page):
            try:
                found += violations(source, f"{page.relative_to(ROOT)} (example of line {line})")
            except SyntaxError:  # a signature, such as those of the hook reference
                assert page.name == "hooks.md" or "..." in source, f"{page}:{line}"
    check(found)


def test_every_public_package_exports_what_its_list_names() -> None:
    for name in sorted(PUBLIC):
        module = import_module(name)
        assert getattr(module, "__all__", None), f"{name} has no __all__"
        missing = [one for one in module.__all__ if not hasattr(module, one)]
        assert not missing, f"{name}.__all__: {missing}"


def test_violations_are_recognized() -> None:
    private = ["import unirl.types", "from unirl import _private", "from unirl.cli import main"]
    public = ["import unirl.testing", "from unirl import Example, hookimpl", "import torch"]
    assert [one.partition(": ")[2] for one in violations("\n".join([*private, *public]), "x")] == private
