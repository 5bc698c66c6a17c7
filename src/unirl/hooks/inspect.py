"""Plugin classes read from source with griffe: bases, constructor arguments, docstrings. Nothing is imported."""

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

from unirl.errors import UserError, suggest
from unirl.hooks.kinds import KINDS

_DYNAMIC = re.compile(r"\b__getattr__\b|\bsys\.modules\b|(?<![.\w])(globals|locals|vars|setattr|exec|eval)\(")
"""Code that may define names of a module at run time."""
_COLLECTIONS = (griffe.ExprDict, griffe.ExprList, griffe.ExprSet, griffe.ExprTuple)
_LITERALS = (str, griffe.ExprJoinedStr, griffe.ExprLambda, *_COLLECTIONS)  # griffe stores constants as text
_SECTIONS = re.compile(r"^(Args|Arguments|Parameters|Example|Examples):\s*\n((?!\S).*(\n|\Z))*", re.MULTILINE)

logging.getLogger("griffe").addHandler(logging.NullHandler())  # otherwise warnings are printed to stderr

_Location = tuple[str | None, Sequence[str] | None]
_Seen = frozenset[str]  # names being resolved, to stop at circular imports


@dataclass(frozen=True)
class Parameter:
    """A constructor argument.

    Args:
        name: Its name in configs.
        annotation: Its type as written; None if there is none.
        default: Its default as written, or the value of the constant it names; None if the argument is required.
        kind: "positional or keyword", "keyword only" or "positional only".
        description: From the docstring's `Args:`; may be empty.
        options: The fields of the dataclass that its default makes, as in `loss: PolicyLoss = PolicyLoss()`.
    """

    name: str
    annotation: str | None
    default: str | None
    kind: str = "positional or keyword"
    description: str = ""
    options: tuple["Parameter", ...] = ()

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
        """The docstring without arguments and examples."""
        return _SECTIONS.sub("", self.doc).strip()


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
    except (_NotFound, _Undecidable) as error:
        raise UserError(str(error)) from error
    bases = (base if isinstance(base, str) else _path(base) for base in _bases(cls))
    return ClassSource(_path(cls), cls.docstring.value if cls.docstring else "", tuple(bases), _described(cls))


def problem(kind: str, path: str) -> str | None:
    """Why a registered class cannot be used.

    Args:
        kind: The plugin kind that it is registered as.
        path: `package.module:Class`.

    Returns:
        The reason in one line; None if the class can be used, or if only running its code would show it.

    Example:
        >>> problem("reward", "unirl.rewards.keyword:Keyword")
        >>> problem("backbone", "unirl.rewards.keyword:Keyword")
        "'unirl.rewards.keyword:Keyword' is a Reward, expected a Backbone"
        >>> problem("reward", "unirl.rewards.keyword:Kyword")
        "module 'unirl.rewards.keyword' has no class 'Kyword'; nearest: Keyword, Reward"
    """
    try:
        mro = _mro(_find(path))
    except _NotFound as error:
        return str(error)
    except _Undecidable:
        return None
    ancestors = {_path(cls) for cls in mro}
    if KINDS[kind].base in ancestors:
        return None
    expected = _with_article(KINDS[kind].base_name)
    if other := next((one.base_name for one in KINDS.values() if one.base in ancestors), None):
        return f"{path!r} is {_with_article(other)}, expected {expected}"
    if any(isinstance(base, str) for cls in mro for base in _bases(cls)):
        return None
    return f"{path!r} is not {expected}: it does not derive from {KINDS[kind].base.replace('.base:', '.')}"


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


class _NotFound(Exception):
    """There is no such class. The message is one line."""


class _Undecidable(Exception):
    """Only running the code would show it. The message is one line."""


# --- modules: griffe's finder ignores `sys.meta_path` and `sys.modules`, and loads whole packages ---


def _module(name: str) -> griffe.Module:
    file, folders = _locate(name)
    if file is None and folders is not None:
        return griffe.Module(name, filepath=[Path(folder) for folder in folders])  # a namespace package
    if file is None or not file.endswith(".py"):
        raise _Undecidable(f"module {name!r} has no Python source")
    try:
        stat = Path(file).stat()
        return _visit(name, file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise _Undecidable(f"module {name!r} cannot be read: {error}") from error
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        reason = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else error
        raise _NotFound(f"module {name!r} is not valid Python: {reason}") from error


@lru_cache(maxsize=256)
def _visit(name: str, file: str, _modified: int, _size: int) -> griffe.Module:
    *packages, last = name.split(".")
    parent = None
    for package in packages:  # griffe resolves relative imports against the parents
        parent = griffe.Module(package, parent=parent)
    with tokenize.open(file) as source:
        code = source.read()
    module = griffe.visit(last, Path(file), code, parent=parent, extensions=griffe.Extensions(_RecordBindings()))
    module.extra["unirl"]["dynamic"] = bool(_DYNAMIC.search(code))
    with suppress(griffe.AliasResolutionError):  # a dataclass with an import in its body
        griffe.DataclassesExtension().on_package(pkg=module)
    return module


def _locate(name: str) -> _Location:
    """The file of a module, and the folders of a package."""
    loaded = sys.modules.get(name)
    file, folders = getattr(loaded, "__file__", None), getattr(loaded, "__path__", None)
    if file or folders:
        return file, None if folders is None else list(folders)
    parent, _, last = name.rpartition(".")
    inside = _locate(parent)[1] if parent else None
    if parent and inside is None:
        raise _NotFound(f"no module {name!r}: {parent!r} is not a package")
    found = _search(name, inside)
    if found is None:
        known = _submodules(inside)
        raise _NotFound(f"no module {name!r}" + (f"; in {parent!r} {suggest(last, known)}" if known else ""))
    return found


def _search(name: str, inside: Sequence[str] | None) -> _Location | None:
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


class _RecordBindings(griffe.Extension):
    """Record what griffe drops: earlier bindings of a name (in `try` or `if`), and calls of the next constructor."""

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
    """The call `super().__init__(..., **kwargs)` in a constructor."""
    for node in ast.walk(init):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
            stars = [keyword.value for keyword in node.keywords if keyword.arg is None]
            if any(isinstance(star, ast.Name) and star.id == kwargs for star in stars):
                return node
    return None


# --- names: griffe's resolution needs all modules to be loaded before, and gives no reason for a failure ---


def _find(path: str) -> griffe.Class:
    name, _, attribute = path.partition(":")
    found = _lookup(_module(name), attribute)
    if isinstance(found, griffe.Module):
        raise _NotFound(f"{path!r} is a module, not a class")
    return found


def _lookup(module: griffe.Module, dotted: str, seen: _Seen = frozenset()) -> griffe.Class | griffe.Module:
    """The class or module that a dotted name in a module refers to."""
    if (key := f"{module.path}:{dotted}") in seen:
        raise _NotFound(f"{key!r} is imported from itself")
    first, _, rest = dotted.partition(".")
    found = _bound(module, first, seen | {key})
    if rest and isinstance(found, griffe.Module):
        return _lookup(found, rest, seen | {key})
    for name in filter(None, rest.split(".")):
        inner = found.members.get(name)
        if not isinstance(inner, griffe.Class):
            raise _Undecidable(f"{found.path!r} has no class {name!r} in its body")
        found = inner
    return found


def _bound(module: griffe.Module, name: str, seen: _Seen) -> griffe.Class | griffe.Module:
    reasons: list[Exception] = []
    for item in reversed(_bindings(module, name)):
        try:
            return _follow(module, item, seen)
        except (_NotFound, _Undecidable) as error:
            reasons.append(error)
    if reasons:
        raise next((reason for reason in reasons if isinstance(reason, _Undecidable)), reasons[-1])
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
        raise _NotFound(f"{where} is a function, not a class")
    value = item.value if isinstance(item, griffe.Attribute) else None
    if other := _dotted(value):
        return _lookup(module, other, seen)
    if isinstance(value, _LITERALS):
        raise _NotFound(f"{where} is {str(value)[:40]}, not a class")
    raise _Undecidable(f"{where} is created when the module runs")


def _dotted(value: str | griffe.Expr | None) -> str | None:
    """`a.b.c` for the expressions `a.b.c` and `a.b.c[T]`; None for others."""
    if isinstance(value, griffe.ExprSubscript):
        value = value.left
    is_name = isinstance(value, griffe.ExprName | griffe.ExprAttribute)
    return str(value) if is_name and all(part.isidentifier() for part in str(value).split(".")) else None


def _star_imported(module: griffe.Module, name: str, seen: _Seen) -> griffe.Class | griffe.Module:
    if module.extra["unirl"].get("dynamic"):
        raise _Undecidable(f"module {module.path!r} creates names when it runs")
    items = [item for bound in module.extra["unirl.bindings"].values() for item in bound]
    known = {item.name for item in items if isinstance(item, griffe.Class | griffe.Alias) and item.name.isidentifier()}
    public = {word for word in known if word[0].isupper()}
    offer = f"; {suggest(name, public)}" if public else ""
    missing: Exception = _NotFound(f"module {module.path!r} has no class {name!r}{offer}")
    for star in (item.wildcard for item in items if isinstance(item, griffe.Alias) and item.wildcard):
        try:
            return _lookup(_module(star), name, seen)
        except _NotFound:
            continue
        except _Undecidable as error:
            missing = error
    raise missing


def _path(cls: griffe.Class) -> str:
    module = cls.module.path
    return f"{module}:{cls.path.removeprefix(f'{module}.')}"


# --- classes ---


def _bases(cls: griffe.Class, seen: _Seen = frozenset()) -> Iterator[griffe.Class | str]:
    """The base classes without built-in ones; as text where they are not found."""
    for base in cls.bases:
        name = _dotted(base) or ""
        if hasattr(builtins, name) and not _bindings(cls.module, name):
            continue
        try:
            found = _lookup(cls.module, name, seen | {cls.path}) if name else None
        except (_NotFound, _Undecidable):
            found = None
        yield found if isinstance(found, griffe.Class) else name or str(base)


def _mro(cls: griffe.Class, seen: _Seen = frozenset()) -> list[griffe.Class]:
    bases = [base for base in _bases(cls, seen) if isinstance(base, griffe.Class)]
    mros = [_mro(base, seen | {cls.path}) for base in bases]
    try:
        return [cls, *griffe.c3linear_merge(*mros, bases)]
    except ValueError:  # `class A(Generic[T], B[T])` is valid: Python drops `Generic`
        return list(dict.fromkeys([cls, *(one for mro in mros for one in mro)]))


def _described(cls: griffe.Class) -> tuple[Parameter, ...]:
    """The arguments of a class with their descriptions."""
    mro = _mro(cls)
    descriptions: dict[str, str] = {}
    for base in reversed(mro):
        descriptions |= _descriptions(base)
    return tuple(replace(one, description=descriptions.get(name, "")) for name, one in _parameters(mro).items())


def _parameters(mro: Sequence[griffe.Class]) -> dict[str, Parameter]:
    """The arguments by name; as in jsonargparse, with those of the next constructor if `**kwargs` is passed to it."""
    parameters: dict[str, Parameter] = {}
    passed: set[str | None] = set()
    positional = 0
    for i, cls in enumerate(mro):
        init = cls.members.get("__init__")
        if not isinstance(init, griffe.Function):
            continue
        own = _arguments(cls, init) if init.lineno else _fields(mro[i:])
        passed |= {one.name for one in own[:positional]}
        parameters |= {one.name: one for one in own if one.name not in passed and one.name not in parameters}
        call = init.extra["unirl"].get("call")
        if call is None:
            break
        passed |= {keyword.arg for keyword in call.keywords}
        positional = len(call.args)
    return parameters


def _arguments(cls: griffe.Class, init: griffe.Function) -> list[Parameter]:
    found = []
    for one in [*init.parameters][1:]:
        kind = one.kind.value.replace("-", " ") if one.kind else ""
        if not kind.startswith("variadic"):
            annotation = None if one.annotation is None else str(one.annotation)
            options = _options(cls, one.default)
            found.append(Parameter(one.name, annotation, _default(cls, one.default), kind, options=options))
    return found


def _options(cls: griffe.Class, default: str | griffe.Expr | None) -> tuple[Parameter, ...]:
    """The fields of the dataclass that a default such as `PolicyLoss()` makes."""
    if not isinstance(default, griffe.ExprCall) or default.arguments:
        return ()
    try:
        made = _lookup(cls.module, _dotted(default.function) or "", frozenset({cls.path}))
    except (_NotFound, _Undecidable):
        return ()
    return _described(made) if isinstance(made, griffe.Class) and "dataclass" in made.labels else ()


def _fields(mro: Sequence[griffe.Class]) -> list[Parameter]:
    """The fields of a dataclass. griffe gives each dataclass an `__init__` on line 0 with the fields of its body."""
    fields: dict[str, Parameter] = {}
    for cls in reversed(mro):
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
    descriptions: dict[str, str] = {}
    for item in (cls, cls.members.get("__init__")):
        if item is None or item.docstring is None:
            continue
        for section in griffe.Docstring(item.docstring.value).parse("google", warnings=False):
            if isinstance(section, griffe.DocstringSectionParameters):
                descriptions |= {one.name: " ".join(one.description.split()) for one in section.value}
    return descriptions
