"""Where plugins come from: entry points of installed distributions, and single files."""

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

OWN = "lightning-unirl"
"""The distribution whose plugins always load."""


@dataclass(frozen=True)
class Candidate:
    """A plugin that may be loaded.

    Args:
        name: Its entry point's name; of a file, the stem.
        distribution: The installed package; of a file, its path.
        version: That package's version; of a file, nothing.
        value: What the entry point refers to.
        load: Imports it.
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
        """Whether the framework ships it."""
        return not self.is_file and canonicalize_name(self.distribution) == OWN

    @property
    def origin(self) -> str:
        """Distribution and version, or the file."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def names(self) -> tuple[str, str]:
        """What switches may call it."""
        return self.name, self.name if self.is_file else self.distribution


def candidates(files: Iterable[str]) -> list[Candidate]:
    """All plugins there are, the framework's own first, then in an order that is the same in every process.

    Args:
        files: Single-file plugins, absolute paths.
    """
    installed = sorted(_installed(), key=lambda one: (not one.builtin, one.distribution, one.name))
    return [*installed, *(_file(Path(path)) for path in files)]


def _installed() -> Iterator[Candidate]:
    for entry in metadata.entry_points(group=PROJECT):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "?")
        yield Candidate(entry.name, distribution, version, entry.value, entry.load)


def _file(path: Path) -> Candidate:
    inside = path.is_relative_to(Path.cwd())
    shown = str(path.relative_to(Path.cwd()) if inside else path)
    return Candidate(path.stem, shown, "", str(path), lambda: load_file(path), is_file=True)


def load_file(path: Path) -> object:
    """Import a file under its stem, as child processes that unpickle its objects will.

    Its folder goes to the end of `sys.path`, which spawned processes inherit and where it hides nothing.

    Args:
        path: The file, absolute.

    Raises:
        UserError: there is no such file, or its stem is no name to import it by.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    stem = path.stem
    if path.suffix != ".py" or not stem.isidentifier() or iskeyword(stem):
        raise UserError(f"{path.name!r} cannot be imported; name it like my_reward.py")
    if (taken := _origin(stem)) and not (Path(taken).exists() and Path(taken).samefile(path)):
        raise UserError(f"{path.name} would hide the module {stem!r} ({taken}); rename the file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    importlib.invalidate_caches()
    return importlib.import_module(stem)


def _origin(module: str) -> str:
    try:
        spec = util.find_spec(module)
    except ValueError:  # a module without a specification, such as __main__
        return "already imported"
    if spec is None:
        return ""
    return spec.origin or ", ".join(spec.submodule_search_locations or ()) or "already imported"
