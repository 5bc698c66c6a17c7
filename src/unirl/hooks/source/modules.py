"""Finds and parses modules without importing them or the packages that they are in."""

import ast
import importlib.machinery
import pkgutil
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from unirl.errors import nearest
from unirl.hooks.source.errors import Unclear, Unusable

Found = tuple[str | None, Sequence[str] | None]
"""The file of a module, if it has one, and the folders of a package, None for a plain module."""

_RUNNING = {"__getattr__", "globals", "locals", "vars", "setattr", "exec", "eval"}
"""Names whose use means that a module may hold more than its text defines."""


@dataclass(frozen=True)
class Module:
    """A parsed module.

    Args:
        name: Dotted.
        tree: What is in its file; empty for a package without one.
        folders: Where a package looks for its modules; None for a plain module.
    """

    name: str
    tree: ast.Module
    folders: Sequence[str] | None

    @property
    def package(self) -> str:
        """What relative imports in it start from."""
        return self.name if self.folders is not None else self.name.rpartition(".")[0]

    @property
    def dynamic(self) -> bool:
        """Whether its code may define names that its text does not show."""
        return _runs(self.tree)

    def children(self) -> set[str]:
        """The modules of a package, by their last names."""
        return {found.name for found in pkgutil.iter_modules(self.folders or [])}


def module(name: str) -> Module:
    """A module, parsed.

    Args:
        name: Dotted.

    Raises:
        Unusable: there is no such module, or it is no valid Python.
        Unclear: it is not written in Python.

    Example:
        >>> module("unirl.errors").package
        'unirl'
    """
    file, folders = _locate(name)
    if file is None and folders is not None:
        return Module(name, ast.Module([], []), folders)  # a namespace package
    if file is None or not file.endswith(".py"):
        raise Unclear(f"module {name!r} has no Python source")
    return Module(name, _parsed(name, file), folders)


def _parsed(name: str, file: str) -> ast.Module:
    try:
        stat = Path(file).stat()
        return _parse(file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise Unclear(f"module {name!r} cannot be read: {error}") from error
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else error
        raise Unusable(f"module {name!r} is no valid Python: {line}{said}") from error


@lru_cache(maxsize=256)
def _parse(file: str, _changed: int, _size: int) -> ast.Module:
    with tokenize.open(file) as source:
        return ast.parse(source.read())


@lru_cache(maxsize=256)
def _runs(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id in _RUNNING)
        or (isinstance(node, ast.FunctionDef) and node.name in _RUNNING)
        or (isinstance(node, ast.Attribute) and node.attr == "modules")
        for node in ast.walk(tree)
    )


def _locate(name: str) -> Found:
    if found := _imported(sys.modules.get(name)):
        return found
    parent, _, last = name.rpartition(".")
    folders = _locate(parent)[1] if parent else None
    if parent and folders is None:
        raise Unusable(f"no module {name!r}: {parent!r} is not a package")
    found = _search(name, folders)
    if found is None:
        known = {child.name for child in pkgutil.iter_modules(folders)} if folders else set()
        offer = f"; nearest in {parent!r}: {nearest(last, known)}" if known else ""
        raise Unusable(f"no module {name!r}{offer}")
    return found


def _imported(loaded: ModuleType | None) -> Found | None:
    file, folders = getattr(loaded, "__file__", None), getattr(loaded, "__path__", None)
    return (file, None if folders is None else list(folders)) if file or folders else None


def _search(name: str, folders: Sequence[str] | None) -> Found | None:
    # What `import` does, finder by finder (editable installs have their own), but for importing the parent package.
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, folders)
        except KeyError:  # a namespace package looks for its parent in sys.modules
            return next(_namespaces(name, folders or []), None)
        if spec is not None:
            return _file(spec), _folders(spec)
    return None


def _file(spec: importlib.machinery.ModuleSpec) -> str | None:
    if spec.origin == "frozen":
        return getattr(spec.loader_state, "filename", None)
    return spec.origin if spec.has_location else None


def _folders(spec: importlib.machinery.ModuleSpec) -> list[str] | None:
    return None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)


def _namespaces(name: str, folders: Sequence[str]) -> Iterator[Found]:
    inside = [Path(folder) / name.rpartition(".")[2] for folder in folders]
    if existing := [str(folder) for folder in inside if folder.is_dir()]:
        yield None, existing
