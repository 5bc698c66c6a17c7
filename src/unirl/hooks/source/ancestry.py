"""The classes that a class derives from, in the order in which Python looks for a method."""

import ast
from collections.abc import Iterator

from unirl.hooks.source.errors import Unclear, Unusable
from unirl.hooks.source.finding import Definition, dotted_name, is_builtin, lookup


def bases(definition: Definition) -> Iterator[Definition | str]:
    """The direct bases of a class; of one that cannot be found, the text that names it.

    Args:
        definition: The class. Python's own classes, such as `object`, are left out.
    """
    for expression in definition.node.bases:
        name = dotted_name(expression)
        if name is None:
            yield ast.unparse(expression)
            continue
        if is_builtin(definition.module, name):
            continue
        try:
            found = lookup(definition.module, name)
        except (Unclear, Unusable):
            yield name
            continue
        yield found if isinstance(found, Definition) else name


def ancestors(definition: Definition) -> list[Definition]:
    """The class and all that it derives from, so far as they can be found; each after everything derived from it.

    Args:
        definition: The class.

    Example:
        >>> from unirl.hooks.source.finding import find
        >>> [found.name for found in ancestors(find("unirl.rewards.keyword:Keyword"))]
        ['Keyword', 'Reward', 'ABC']
    """
    parents: dict[str, list[Definition]] = {}
    order = [definition]
    for current in order:
        if current.path in parents:
            continue
        parents[current.path] = [base for base in bases(current) if isinstance(base, Definition)]
        order.extend(parents[current.path])
    line: list[Definition] = []
    _visit(definition, parents, line, set())
    return line[::-1]


def _visit(current: Definition, parents: dict[str, list[Definition]], line: list[Definition], done: set[str]) -> None:
    # Depth first from the last base on: what comes out backwards is Python's own order for all that may be inherited.
    if current.path in done:
        return
    done.add(current.path)
    for base in reversed(parents[current.path]):
        _visit(base, parents, line, done)
    line.append(current)


def unknown_bases(definition: Definition) -> bool:
    """Whether some class that it derives from could not be found.

    Args:
        definition: The class.
    """
    return any(isinstance(base, str) for found in ancestors(definition) for base in bases(found))
