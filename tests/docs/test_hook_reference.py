"""The hook reference is made from the specifications, and every hook is tested."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from unirl.hooks import specs
from unirl.hooks.reference import hooks, reference

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins" / "hooks.md").read_text()
TESTS = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "plugins").glob("*/tests/**/*.py")]


def test_the_page_is_up_to_date() -> None:
    assert reference() == PAGE, "run: python -m unirl.hooks.reference > docs/plugins/hooks.md"


def test_every_specification_is_a_hook_of_the_reference() -> None:
    marked = {name for name, value in vars(specs).items() if hasattr(value, "unirl_spec")}
    assert hooks().keys() == marked


@pytest.mark.parametrize("name", hooks())
def test_every_hook_is_there_with_its_exact_signature_status_and_version(name: str) -> None:
    source = ast.parse(inspect.getsource(specs))
    function = next(node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == name)
    returns = ast.unparse(function.returns) if function.returns else "None"
    assert f"```python\ndef {name}({ast.unparse(function.args)}) -> {returns}: ...\n```" in PAGE
    hook = hooks()[name]
    assert f"| [`{name}`](#{name}) | {hook.stability} | {hook.since} |" in PAGE
    assert f"## {name}\n\n*{hook.stability}, since {hook.since}*" in PAGE
    assert hook.stability in ("stable", "experimental")
    assert re.fullmatch(r"\d+\.\d+", hook.since)
    for argument in inspect.signature(hook).parameters:
        assert argument == "register" or f"- `{argument}`: " in PAGE


@pytest.mark.parametrize("name", hooks())
def test_every_hook_is_implemented_or_called_by_a_test(name: str) -> None:
    """As code, or within the text of a plugin that a test installs."""
    use = re.compile(rf"(def |\.){name}\(")
    assert any(use.search(file.read_text()) for file in TESTS if file != Path(__file__)), f"no test uses {name}"
