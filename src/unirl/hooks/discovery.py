"""Finding plugins: entry points of installed distributions, and single files given by path."""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from keyword import iskeyword
from pathlib import Path

from packaging.utils import canonicalize_name

from unirl.errors import UserError
from unirl.hooks import PROJECT

OWN_DISTRIBUTION = "lightning-unirl"
"""The distribution of this framework, whose plugins are always loaded."""


@dataclass(frozen=True)
class Candidate:
    """A plugin that can be loaded.

    Args:
        name: Name of the entry point; for a file, its stem.
        distribution: The installed distribution; for a file, its path.
        version: Version of that distribution; empty for a file.
        value: The entry point's object reference.
        load: Imports the plugin.
        is_file: Whether it was given by path.
    """

    name: str
    distribution: str
    version: str
    value: str
    load: Callable[[], object]
    is_file: bool = False

    @property
    def builtin(self) -> bool:
        """Whether it is part of this framework."""
        return not self.is_file and canonicalize_name(self.distribution) == OWN_DISTRIBUTION

    @property
    def origin(self) -> str:
        """Distribution and version, or the file."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def names(self) -> tuple[str, str]:
        """The names that plugin options may use for it: entry point and distribution."""
        return self.name, self.name if self.is_file else self.distribution


def candidates(files: Iterable[str]) -> list[Candidate]:
    """All plugins: built-in ones first, then installed ones in the same order in every process, then files.

    Args:
        files: Single-file plugins, as absolute paths.
    """
    installed = sorted(_installed(), key=lambda one: (not one.builtin, one.distribution, one.name))
    return [*installed, *(_from_file(Path(path)) for path in files)]


def _installed() -> Iterator[Candidate]:
    for entry in metadata.entry_points(group=PROJECT):
        yield Candidate(entry.name, *_origin(entry.dist), entry.value, entry.load)


def _origin(distribution: metadata.Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution, which what is left of a removed one does not have."""
    names = ("Name", "Version")
    name, version = (distribution.metadata[key] if distribution and distribution.metadata else None for key in names)
    return name or "unknown", version or "?"


def _from_file(path: Path) -> Candidate:
    below_cwd = path.is_relative_to(Path.cwd())
    shown = str(path.relative_to(Path.cwd()) if below_cwd else path)
    return Candidate(path.stem, shown, "", str(path), lambda: load_file(path), is_file=True)


def load_file(path: Path) -> object:
    """Import a file as a module named after its stem.

    Child processes that unpickle its objects import it under the same name: its folder is appended to `sys.path`,
    which spawned processes inherit. At the end of the path it shadows no other module.

    Args:
        path: The file, absolute.

    Raises:
        UserError: the file does not exist, or its stem is not a usable module name.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    stem = path.stem
    if path.suffix != ".py" or not stem.isidentifier() or iskeyword(stem):
        raise UserError(f"{path.name!r} cannot be imported; name it like my_reward.py")
    if (existing := _module_origin(stem)) and not (Path(existing).exists() and Path(existing).samefile(path)):
        raise UserError(f"{path.name} has the name of the module {stem!r} ({existing}); rename the file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    importlib.invalidate_caches()
    return importlib.import_module(stem)


def _module_origin(module: str) -> str:
    try:
        spec = util.find_spec(module)
    except ValueError:  # a module without a specification, such as __main__
        return "already imported"
    if spec is None:
        return ""
    return spec.origin or ", ".join(spec.submodule_search_locations or ()) or "already imported"
