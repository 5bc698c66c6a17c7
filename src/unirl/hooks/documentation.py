"""Generates the hook reference: `python -m unirl.hooks.documentation > docs/plugins/hooks.md`."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from unirl.hooks.specs import specifications

HEAD = """# Hooks

All hooks that a plugin can implement. Mark an implementation with `from unirl import hookimpl`. It takes the arguments
below by name, and may omit those that it does not use. `register(name, "package.module:Class")` takes an import path
instead of a class, so that listing plugins imports no class. A name must not contain dots.

*Generated from `src/unirl/hooks/specs.py` by `python -m unirl.hooks.documentation > docs/plugins/hooks.md`.*
"""


def signature(hook: Callable[..., Any]) -> str:
    """The signature of a specification as written in Python.

    Args:
        hook: The specification.

    Example:
        >>> signature(specifications()["unirl_rollout_scored"])
        'def unirl_rollout_scored(rollout: Rollout) -> Tensor | None'
    """
    spec = inspect.signature(hook)
    arguments = ", ".join(f"{one.name}: {one.annotation}" for one in spec.parameters.values())
    return f"def {hook.__name__}({arguments}) -> {spec.return_annotation}"


def reference() -> str:
    """The reference page, in Markdown."""
    table = ["| hook | status | since |", "|---|---|---|"]
    table += [f"| [`{name}`](#{name}) | {hook.stability} | {hook.since} |" for name, hook in specifications().items()]
    parts = [HEAD, "\n".join(table), *(_section(hook) for hook in specifications().values())]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(hook: Any) -> str:
    title = f"## {hook.__name__}\n\n*{hook.stability}, since {hook.since}*"
    return f"{title}\n\n```python\n{signature(hook)}: ...\n```\n\n" + "\n".join(_markdown(inspect.getdoc(hook) or ""))


def _markdown(doc: str) -> Iterator[str]:
    """The lines of a docstring, with its sections as lists."""
    for line in doc.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            yield f"**{line}**\n"
        elif line.startswith("    ") and not line.startswith("     ") and ": " in line:
            name, _, text = line.strip().partition(": ")
            yield f"- `{name}`: {text}"
        else:
            yield f"  {line.strip()}" if line.startswith(" ") else line


if __name__ == "__main__":
    print(reference(), end="")
