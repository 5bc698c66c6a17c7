"""Read plugin classes from their source files with griffe. Neither the classes nor their packages are imported."""

import ast
import builtins
import logging
import pkgutil
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import griffe

from unirl.errors import UserError, nearest

BASES = {
    "backbone": "unirl.backbones.base:Backbone",
    "reward": "unirl.rewards.base:Reward",
    "update": "unirl.updates.base:UpdateRule",
    "prompts": "unirl.prompts.base:Prompts",
    "judge": "unirl.judges.base:Judge",
}
"""The base class of each plugin kind."""

_DYNAMIC = re.compile(r"\b__getattr__\b|\bsys\.modules\b|(?<![.\w])(globals|locals|vars|setattr|exec|eval)\(")
"""A module with such code may define names at run time."""
_COLLECTIONS = (griffe.ExprDict, griffe.ExprList, griffe.ExprSet, griffe.ExprTuple)
_LITERALS = (str, griffe.ExprJoinedStr, griffe.ExprLambda, *_COLLECTIONS)  # griffe keeps constants as text
_ARGUMENTS = re.compile(r"^(Args|Arguments|Parameters):\s*\n((?!\S).*(\n|\Z))*", re.MULTILINE)

logging.getLogger("griffe").addHandler(logging.NullHandler())  # otherwise its warnings are printed to stderr

_Seen = frozenset[str]


@dataclass(frozen=True)
class Parameter:
    """A constructor argument.

    Args:
        name: Its name in configs.
        annotation: Its type as written; None if there is none.
        default: Its default as written, or the value of the constant it names; None if the argument is required.
        kind: "positional or keyword", "keyword only" or "positional only".
        description: From the docstring's `Args:`; may be empty.
    """

    name: str
    annotation: str | None
    default: str | None
    kind: str = "positional or keyword"
    description: str = ""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is None


@dataclass(frozen=True)
class ClassSource:
    """A class as written in its source file.

    Args:
        path: `package.module:Class`, where the class is defined.
        doc: Its docstring without indentation; may be empty.
        bases: Its base classes as `package.module:Class`, or as written if not found.
        parameters: The arguments of its constructor, in order, without `*args` and `**kwargs`.
    """

    path: str
    doc: str
    bases: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @property
    def summary(self) -> str:
        """The docstring without its `Args:` section."""
        return _ARGUMENTS.sub("", self.doc).strip()


def read(path: str) -> ClassSource:
    """Read a class without importing it.

    Args:
        path: `package.module:Class`; may be a re-export.

    Raises:
        UserError: there is no such class, or it is created at run time.

    Example:
        >>> source = read("unirl.rewards:Reward")
        >>> source.path, [parameter.name for parameter in source.parameters]
        ('unirl.rewards.base:Reward', ['weight', 'standardize'])
    """
    try:
        cls = _find(path)
    except (_Missing, _Unclear) as error:
        raise UserError(str(error)) from error
    line = _mro(cls)
    described: dict[str, str] = {}
    for one in reversed(line):
        described |= _descriptions(one)
    parameters = (replace(one, description=described.get(name, "")) for name, one in _parameters(line).items())
    bases = (base if isinstance(base, str) else _path(base) for base in _bases(cls))
    return ClassSource(_path(cls), cls.docstring.value if cls.docstring else "", tuple(bases), tuple(parameters))


def problem(kind: str, path: str) -> str | None:
    """Say why a registered class cannot be used.

    Args:
        kind: What it is registered as: one of `BASES`.
        path: `package.module:Class`.

    Returns:
        The reason on one line; None if the class can be used, or if only running its code would tell.

    Example:
        >>> problem("reward", "unirl.rewards.keyword:Keyword")
        >>> problem("backbone", "unirl.rewards.keyword:Keyword")
        "'unirl.rewards.keyword:Keyword' is a Reward, expected a Backbone"
        >>> problem("reward", "unirl.rewards.keyword:Kyword")
        "module 'unirl.rewards.keyword' has no class 'Kyword'; nearest: Keyword, Reward"
    """
    try:
        line = _mro(_find(path))
    except _Missing as error:
        return str(error)
    except _Unclear:
        return None
    derived = {_path(one) for one in line}
    if BASES[kind] in derived:
        return None
    wanted = _with_article(BASES[kind])
    if other := next((base for base in BASES.values() if base in derived), None):
        return f"{path!r} is {_with_article(other)}, expected {wanted}"
    if any(isinstance(base, str) for one in line for base in _bases(one)):
        return None
    return f"{path!r} is not {wanted}: it does not derive from {BASES[kind].replace('.base:', '.')}"


def _with_article(path: str) -> str:
    name = path.rpartition(":")[2]
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


class _Missing(Exception):
    """There is no such class. The message says why, on one line."""


class _Unclear(Exception):
    """Only running the code would tell. The message says why, on one line."""


# Modules: griffe's own finder knows neither `sys.meta_path` nor `sys.modules`, and loads whole packages.


def _module(name: str) -> griffe.Module:
    file, folders = _locate(name)
    if file is None and folders is not None:
        return griffe.Module(name, filepath=[Path(folder) for folder in folders])  # a namespace package
    if file is None or not file.endswith(".py"):
        raise _Unclear(f"module {name!r} has no Python source")
    try:
        stat = Path(file).stat()
        return _visit(name, file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise _Unclear(f"module {name!r} cannot be read: {error}") from error
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        reason = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else error
        raise _Missing(f"module {name!r} is no valid Python: {reason}") from error


@lru_cache(maxsize=256)
def _visit(name: str, file: str, _modified: int, _size: int) -> griffe.Module:
    *packages, last = name.split(".")
    parent = None
    for package in packages:  # relative imports are resolved against the parents
        parent = griffe.Module(package, parent=parent)
    with tokenize.open(file) as source:
        code = source.read()
    module = griffe.visit(last, Path(file), code, parent=parent, extensions=griffe.Extensions(_Notes()))
    module.extra["unirl"]["dynamic"] = bool(_DYNAMIC.search(code))
    with suppress(griffe.AliasResolutionError):  # a dataclass with an import in its body
        griffe.DataclassesExtension().on_package(pkg=module)
    return module


def _locate(name: str) -> tuple[str | None, Sequence[str] | None]:
    """The file of a module, and the folders of a package."""
    loaded = sys.modules.get(name)
    file, folders = getattr(loaded, "__file__", None), getattr(loaded, "__path__", None)
    if file or folders:
        return file, None if folders is None else list(folders)
    parent, _, last = name.rpartition(".")
    inside = _locate(parent)[1] if parent else None
    if parent and inside is None:
        raise _Missing(f"no module {name!r}: {parent!r} is not a package")
    found = _search(name, inside)
    if found is None:
        known = _submodules(inside)
        raise _Missing(f"no module {name!r}" + (f"; nearest in {parent!r}: {nearest(last, known)}" if known else ""))
    return found


def _search(name: str, inside: Sequence[str] | None) -> tuple[str | None, Sequence[str] | None] | None:
    for finder in sys.meta_path:  # `importlib.util.find_spec` would import the parent package
        try:
            spec = finder.find_spec(name, inside)
        except KeyError:  # a namespace package whose parent is not in `sys.modules`
            return None, [f"{folder}/{name.rpartition('.')[2]}" for folder in inside or ()]
        if spec is not None:
            folders = spec.submodule_search_locations
            return spec.origin if spec.has_location else None, None if folders is None else list(folders)
    return None


def _submodules(folders: Sequence[str] | None) -> set[str]:
    return {found.name for found in pkgutil.iter_modules(folders)} if folders else set()


class _Notes(griffe.Extension):
    """Keep what griffe drops: all but one binding of a name (in `try`, `if`), and the call of the next constructor."""

    def on_instance(self, *, node: Any, obj: griffe.Object, **_: Any) -> None:
        _bindings(obj.parent, obj.name).append(obj)
        if obj.name == "__init__" and isinstance(node, ast.FunctionDef) and node.args.kwarg:
            obj.extra["unirl"]["call"] = _next_constructor(node, node.args.kwarg.arg)

    def on_alias_instance(self, *, alias: griffe.Alias, **_: Any) -> None:
        _bindings(alias.parent, alias.name).append(alias)

    def on_attribute_node(self, *, node: Any, agent: Any, **_: Any) -> None:
        for target in getattr(node, "targets", None) or [node.target]:
            value = griffe.safe_get_expression(node.value, parent=agent.current)
            if not isinstance(target, ast.Name):  # `A, B = ...`
                value = None
            for name in (one.id for one in ast.walk(target) if isinstance(one, ast.Name)):
                _bindings(agent.current, name).append(griffe.Attribute(name, value=value))


def _bindings(scope: Any, name: str) -> list[griffe.Object | griffe.Alias]:
    return scope.extra["unirl.bindings"].setdefault(name, []) if scope else []


def _next_constructor(init: ast.FunctionDef, kwargs: str) -> ast.Call | None:
    """The call `super().__init__(..., **kwargs)`."""
    for node in ast.walk(init):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
            stars = [keyword.value for keyword in node.keywords if keyword.arg is None]
            if any(isinstance(star, ast.Name) and star.id == kwargs for star in stars):
                return node
    return None


# Names: griffe's own resolution needs all modules loaded beforehand, and does not tell why it failed.


def _find(path: str) -> griffe.Class:
    name, _, attribute = path.partition(":")
    found = _lookup(_module(name), attribute)
    if isinstance(found, griffe.Module):
        raise _Missing(f"{path!r} is a module, not a class")
    return found


def _lookup(module: griffe.Module, dotted: str, seen: _Seen = frozenset()) -> griffe.Class | griffe.Module:
    """The meaning of a dotted name in a module."""
    if (key := f"{module.path}:{dotted}") in seen:
        raise _Missing(f"{key!r} is imported in a circle")
    first, _, rest = dotted.partition(".")
    found = _bound(module, first, seen | {key})
    if rest and isinstance(found, griffe.Module):
        return _lookup(found, rest, seen | {key})
    for name in filter(None, rest.split(".")):
        inner = found.members.get(name)
        if not isinstance(inner, griffe.Class):
            raise _Unclear(f"{found.path!r} has no class {name!r} in its body")
        found = inner
    return found


def _bound(module: griffe.Module, name: str, seen: _Seen) -> griffe.Class | griffe.Module:
    reasons: list[Exception] = []
    for item in reversed(_bindings(module, name)):
        try:
            return _follow(module, item, seen)
        except (_Missing, _Unclear) as error:
            reasons.append(error)
    if reasons:
        raise next((reason for reason in reasons if isinstance(reason, _Unclear)), reasons[-1])
    if name in _submodules(_locate(module.path)[1]):
        return _module(f"{module.path}.{name}")
    return _star_imported(module, name, seen)


def _follow(module: griffe.Module, item: griffe.Object | griffe.Alias, seen: _Seen) -> griffe.Class | griffe.Module:
    if isinstance(item, griffe.Alias):
        parent, _, name = item.target_path.rpartition(".")
        return _lookup(_module(parent), name, seen) if parent else _module(name)
    if isinstance(item, griffe.Class) and item.path not in seen:
        return item
    where = f"'{module.path}:{item.name}'"
    if isinstance(item, griffe.Function):
        raise _Missing(f"{where} is a function, not a class")
    value = item.value if isinstance(item, griffe.Attribute) else None
    if other := _dotted(value):
        return _lookup(module, other, seen)
    if isinstance(value, _LITERALS):
        raise _Missing(f"{where} is {str(value)[:40]}, not a class")
    raise _Unclear(f"{where} is made when the module runs")


def _dotted(value: str | griffe.Expr | None) -> str | None:
    """`a.b.c`, also for `a.b.c[T]`; None for other expressions."""
    if isinstance(value, griffe.ExprSubscript):
        value = value.left
    is_name = isinstance(value, griffe.ExprName | griffe.ExprAttribute)
    return str(value) if is_name and all(part.isidentifier() for part in str(value).split(".")) else None


def _star_imported(module: griffe.Module, name: str, seen: _Seen) -> griffe.Class | griffe.Module:
    if module.extra["unirl"].get("dynamic"):
        raise _Unclear(f"module {module.path!r} makes names when it runs")
    items = [item for bound in module.extra["unirl.bindings"].values() for item in bound]
    known = {item.name for item in items if isinstance(item, griffe.Class | griffe.Alias) and item.name.isidentifier()}
    public = {word for word in known if word[0].isupper()}
    offer = f"; nearest: {nearest(name, public)}" if public else ""
    missing: Exception = _Missing(f"module {module.path!r} has no class {name!r}{offer}")
    for star in (item.wildcard for item in items if isinstance(item, griffe.Alias) and item.wildcard):
        try:
            return _lookup(_module(star), name, seen)
        except _Missing:
            continue
        except _Unclear as error:
            missing = error
    raise missing


def _path(cls: griffe.Class) -> str:
    module = cls.module.path
    return f"{module}:{cls.path.removeprefix(f'{module}.')}"


# Classes.


def _bases(cls: griffe.Class, seen: _Seen = frozenset()) -> Iterator[griffe.Class | str]:
    """The base classes, without built-in ones; as text if not found."""
    for base in cls.bases:
        name = _dotted(base) or ""
        if hasattr(builtins, name) and not _bindings(cls.module, name):
            continue
        try:
            found = _lookup(cls.module, name, seen | {cls.path}) if name else None
        except (_Missing, _Unclear):
            found = None
        yield found if isinstance(found, griffe.Class) else name or str(base)


def _mro(cls: griffe.Class, seen: _Seen = frozenset()) -> list[griffe.Class]:
    bases = [base for base in _bases(cls, seen) if isinstance(base, griffe.Class)]
    lines = [_mro(base, seen | {cls.path}) for base in bases]
    try:
        return [cls, *griffe.c3linear_merge(*lines, bases)]
    except ValueError:  # `class A(Generic[T], B[T])` is valid: Python drops `Generic`
        return list(dict.fromkeys([cls, *(one for line in lines for one in line)]))


def _parameters(line: Sequence[griffe.Class]) -> dict[str, Parameter]:
    """The arguments by name. Those of the next constructor follow if `**kwargs` is passed to it, as in jsonargparse."""
    found: dict[str, Parameter] = {}
    given: set[str | None] = set()
    positional = 0
    for i, cls in enumerate(line):
        init = cls.members.get("__init__")
        if not isinstance(init, griffe.Function):
            continue
        own = _arguments(cls, init) if init.lineno else _fields(line[i:])
        given |= {one.name for one in own[:positional]}
        found |= {one.name: one for one in own if one.name not in given and one.name not in found}
        call = init.extra["unirl"].get("call")
        if call is None:
            break
        given |= {keyword.arg for keyword in call.keywords}
        positional = len(call.args)
    return found


def _arguments(cls: griffe.Class, init: griffe.Function) -> list[Parameter]:
    found = []
    for one in [*init.parameters][1:]:
        kind = one.kind.value.replace("-", " ") if one.kind else ""
        if not kind.startswith("variadic"):
            annotation = None if one.annotation is None else str(one.annotation)
            found.append(Parameter(one.name, annotation, _default(cls, one.default), kind))
    return found


def _fields(line: Sequence[griffe.Class]) -> list[Parameter]:
    """The fields of a dataclass; griffe gives each dataclass an `__init__` on line 0, with its own fields."""
    fields: dict[str, Parameter] = {}
    for cls in reversed(line):
        init = cls.members.get("__init__")
        if isinstance(init, griffe.Function) and not init.lineno:
            fields |= {one.name: one for one in _arguments(cls, init)}
    return sorted(fields.values(), key=lambda one: one.kind == "keyword only")


def _default(cls: griffe.Class, value: str | griffe.Expr | None) -> str | None:
    if isinstance(value, griffe.ExprName):
        constant = cls.module.members.get(value.name)
        if isinstance(constant, griffe.Attribute) and isinstance(constant.value, str):
            return constant.value
    return None if value is None else {"list()": "[]", "dict()": "{}"}.get(str(value), str(value))


def _descriptions(cls: griffe.Class) -> dict[str, str]:
    described: dict[str, str] = {}
    for item in (cls, cls.members.get("__init__")):
        if item is None or item.docstring is None:
            continue
        for section in griffe.Docstring(item.docstring.value).parse("google", warnings=False):
            if isinstance(section, griffe.DocstringSectionParameters):
                described |= {one.name: " ".join(one.description.split()) for one in section.value}
    return described
