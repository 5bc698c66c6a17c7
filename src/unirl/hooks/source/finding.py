"""Follows a name through imports and re-exports to the class that it stands for."""

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass

from unirl.errors import nearest
from unirl.hooks.source.errors import Unclear, Unusable
from unirl.hooks.source.modules import Module, module
from unirl.hooks.source.statements import bindings, statements

Seen = frozenset[tuple[str, str]]
"""Modules and names on the way to a class."""


@dataclass(frozen=True, eq=False)
class Definition:
    """A class where it is written.

    Args:
        module: What its file holds.
        name: Its name there, dotted inside another class.
        node: What it is.
    """

    module: Module
    name: str
    node: ast.ClassDef

    @property
    def path(self) -> str:
        """`package.module:Class`."""
        return f"{self.module.name}:{self.name}"


def find(path: str) -> Definition:
    """The class behind an import path.

    Args:
        path: `package.module:Class`.

    Raises:
        Unusable: there is none.
        Unclear: only running the code would tell.

    Example:
        >>> find("unirl.rewards:Reward").path
        'unirl.rewards.base:Reward'
    """
    name, _, attribute = path.partition(":")
    found = lookup(module(name), attribute)
    if isinstance(found, Module):
        raise Unusable(f"{path!r} is a module, not a class")
    return found


def lookup(where: Module, dotted: str, seen: Seen = frozenset()) -> Definition | Module:
    """What a dotted name means in a module.

    Args:
        where: The module.
        dotted: `Class`, `module.Class` or `Outer.Inner`.
        seen: What was looked up on the way here: imports may go in circles.

    Raises:
        Unusable: it is no class.
        Unclear: only running the code would tell.
    """
    if (where.name, dotted) in seen:
        raise Unusable(f"'{where.name}:{dotted}' is imported in a circle")
    seen |= {(where.name, dotted)}
    first, _, rest = dotted.partition(".")
    found = _bound(where, first, seen)
    if not rest:
        return found
    if isinstance(found, Module):
        return lookup(found, rest, seen)
    return _inner(found, rest)


def _inner(outer: Definition, dotted: str) -> Definition:
    for name in dotted.split("."):
        node = next((n for n in outer.node.body if isinstance(n, ast.ClassDef) and n.name == name), None)
        if node is None:
            raise Unclear(f"{outer.path} has no class {name!r} in its body")
        outer = Definition(outer.module, f"{outer.name}.{name}", node)
    return outer


def _bound(where: Module, name: str, seen: Seen) -> Definition | Module:
    """The class that a name is bound to; of alternatives (`try`, `if`) any that is one."""
    reasons: list[Unclear | Unusable] = []
    for binding in bindings(where.tree.body, name):
        try:
            return _follow(where, name, binding, seen)
        except (Unclear, Unusable) as error:
            reasons.append(error)
    if reasons:
        raise next((reason for reason in reasons if isinstance(reason, Unclear)), reasons[-1])
    if where.folders is not None and name in where.children():
        return module(f"{where.name}.{name}")
    return _starred(where, name, seen)


def _starred(where: Module, name: str, seen: Seen) -> Definition | Module:
    missing = _missing(where, name)
    if isinstance(missing, Unclear):
        raise missing
    stars = [s for s in statements(where.tree.body) if isinstance(s, ast.ImportFrom) and s.names[0].name == "*"]
    for star in stars:
        try:
            return lookup(module(_source(where, star)), name, seen)
        except Unusable:
            continue
        except Unclear as error:
            missing = error
    raise missing


def _missing(where: Module, name: str) -> Unusable | Unclear:
    if where.dynamic:
        return Unclear(f"module {where.name!r} makes names when it runs")
    known = {s.name for s in statements(where.tree.body) if isinstance(s, ast.ClassDef)}
    known |= {alias.asname or alias.name for alias in _imported(where)} - {"*"}
    public = {word for word in known if word[0].isupper()}
    offer = f"; nearest: {nearest(name, public)}" if public else ""
    return Unusable(f"module {where.name!r} has no class {name!r}{offer}")


def _imported(where: Module) -> Iterator[ast.alias]:
    for statement in statements(where.tree.body):
        if isinstance(statement, ast.ImportFrom):
            yield from statement.names


def _follow(where: Module, name: str, binding: ast.stmt, seen: Seen) -> Definition | Module:
    match binding:
        case ast.ClassDef():
            return Definition(where, name, binding)
        case ast.ImportFrom(names=names):
            alias = next(alias for alias in names if (alias.asname or alias.name) == name)
            source = _source(where, binding)
            if source == where.name and name == alias.name:  # `from . import name`, of a module beside it
                return module(f"{source}.{name}")
            return lookup(module(source), alias.name, seen)
        case ast.Import(names=names):
            alias = next(alias for alias in names if (alias.asname or alias.name.partition(".")[0]) == name)
            return module(alias.name if alias.asname else name)
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            return _assigned(where, name, value, seen)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            raise Unusable(f"'{where.name}:{name}' is a function, not a class")
    raise Unclear(f"'{where.name}:{name}' is made when the module runs")


def _assigned(where: Module, name: str, value: ast.expr, seen: Seen) -> Definition | Module:
    if other := dotted_name(value):
        return lookup(where, other, seen)
    if isinstance(value, ast.Constant | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.JoinedStr | ast.Lambda):
        raise Unusable(f"'{where.name}:{name}' is {ast.unparse(value)[:40]}, not a class")
    raise Unclear(f"'{where.name}:{name}' is made when the module runs")


def dotted_name(node: ast.expr) -> str | None:
    """`a.b.c` for such an expression, and for `a.b.c[T]`; None for all others."""
    if isinstance(node, ast.Subscript):
        return dotted_name(node.value)
    if isinstance(node, ast.Attribute):
        inner = dotted_name(node.value)
        return f"{inner}.{node.attr}" if inner else None
    return node.id if isinstance(node, ast.Name) else None


def is_builtin(where: Module, name: str) -> bool:
    """Whether a name means Python's own class there."""
    return hasattr(builtins, name) and not any(bindings(where.tree.body, name))


def _source(where: Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parts = where.package.split(".")
    base = parts[: len(parts) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])
