"""Writes the hook reference: `python -m unirl.hooks.reference > docs/plugins/hooks.md`."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from unirl.hooks import PROJECT, specs

HEAD = """# Hooks

Everything a plugin can tell the framework. Mark an implementation with `from unirl import hookimpl`. It takes the
arguments below by name, and may leave out those that it does not need. `register(name, "package.module:Class")` takes
an import path and not a class, so that listing plugins imports nothing heavy; a name has no dots.

*Made from `src/unirl/hooks/specs.py` by `python -m unirl.hooks.reference > docs/plugins/hooks.md`.*
"""


def hooks() -> dict[str, Any]:
    """Every hook's specification, by name, in the order of the file.

    Example:
        >>> list(hooks())[0]
        'unirl_register_backbones'
    """
    return {name: value for name, value in vars(specs).items() if name.startswith(f"{PROJECT}_")}


def signature(hook: Callable[..., Any]) -> str:
    """A specification as Python writes it.

    Args:
        hook: The specification.

    Example:
        >>> signature(hooks()["unirl_rollout_scored"])
        'def unirl_rollout_scored(rollout: Rollout) -> Tensor | None'
    """
    taken = inspect.signature(hook)
    arguments = ", ".join(f"{one.name}: {one.annotation}" for one in taken.parameters.values())
    return f"def {hook.__name__}({arguments}) -> {taken.return_annotation}"


def reference() -> str:
    """The whole page, in Markdown."""
    table = ["| hook | status | since |", "|---|---|---|"]
    table += [f"| [`{name}`](#{name}) | {hook.stability} | {hook.since} |" for name, hook in hooks().items()]
    parts = [HEAD, "\n".join(table), *(_section(hook) for hook in hooks().values())]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(hook: Any) -> str:
    title = f"## {hook.__name__}\n\n*{hook.stability}, since {hook.since}*"
    return f"{title}\n\n```python\n{signature(hook)}: ...\n```\n\n" + "\n".join(_markdown(inspect.getdoc(hook) or ""))


def _markdown(doc: str) -> Iterator[str]:
    """A docstring's sections as lists; prose as it is."""
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
