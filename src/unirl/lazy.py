"""Packages whose names are imported when they are first used."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that imports its modules when one of their names is used.

    Args:
        package: Its name.
        modules: The names of each module, by its name below the package.

    Example:
        >>> get, _ = lazy_exports("unirl", {"errors": ("UserError",)})
        >>> get("UserError").__name__
        'UserError'
    """
    sources = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(sources[name]), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *sources})

    return get, names
