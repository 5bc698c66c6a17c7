"""The hook reference is generated from the specifications, and every hook is tested."""

import ast
import inspect
import re
from pathlib import Path

from unirl.hooks import specs
from unirl.hooks.documentation import reference
from unirl.hooks.specs import specifications

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins" / "hooks.md").read_text()
TESTS = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "plugins").glob("*/tests/**/*.py")]


def test_the_page_is_up_to_date() -> None:
    assert reference() == PAGE, "run: python -m unirl.hooks.documentation > docs/plugins/hooks.md"


def test_every_specification_is_a_hook_of_the_reference() -> None:
    marked = {name for name, value in vars(specs).items() if hasattr(value, "unirl_spec")}
    assert specifications().keys() == marked


def test_every_hook_has_its_exact_signature_stability_and_version() -> None:
    source = ast.parse(inspect.getsource(specs))
    functions = {node.name: node for node in source.body if isinstance(node, ast.FunctionDef)}
    for name, hook in specifications().items():
        function = functions[name]
        returns = ast.unparse(function.returns) if function.returns else "None"
        assert f"```python\ndef {name}({ast.unparse(function.args)}) -> {returns}: ...\n```" in PAGE
        assert f"| [`{name}`](#{name}) | {hook.stability} | {hook.since} |" in PAGE
        assert f"## {name}\n\n*{hook.stability}, since {hook.since}*" in PAGE
        assert hook.stability in ("stable", "experimental")
        assert re.fullmatch(r"\d+\.\d+", hook.since)
        for argument in inspect.signature(hook).parameters:
            assert argument == "register" or f"- `{argument}`: " in PAGE


def test_every_hook_is_implemented_or_called_by_a_test() -> None:
    """As code, or in the source of a plugin that a test installs."""
    text = "\n".join(file.read_text() for file in TESTS if file != Path(__file__))
    assert not [name for name in specifications() if not re.search(rf"(def |\.){name}\(", text)]
