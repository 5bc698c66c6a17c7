"""`unirl new`: writes an installable plugin package with a working implementation to start from."""

import argparse
import importlib.util
import keyword
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from unirl import __version__
from unirl.cli.messages import CommandParser
from unirl.errors import UserError, suggest
from unirl.hooks.host import host
from unirl.hooks.kinds import KINDS, PluginKind

SUFFIX = ".template"
PACKAGES: Mapping[str, tuple[str, ...]] = {**{kind: (kind,) for kind in KINDS}, "world": ("prompts", "judge")}
"""The plugin kinds of each package that can be written."""
NOTES = {
    "src/{package}/{kind}.py": "the implementation: start here",
    "src/{package}/network.py": "its network",
    "src/{package}/words.py": "its vocabulary",
    "src/{package}/plugin.py": "registers the name {name!r}",
    "tests/test_{kind}.py": "the checks of every {kind} plugin, and tests of its own",
    "example.yaml": "config of a short run",
    ".github/workflows/ci.yml": "installs the package and runs its tests",
    "LICENSE": "Apache-2.0; replace it as you like",
}
"""Notes that the command prints next to the names of some files."""


@dataclass(frozen=True)
class Package:
    """A package to write.

    Args:
        kind: One of `PACKAGES`.
        name: The name that it registers.
        folder: Where it is written; new or empty.
    """

    kind: str
    name: str
    folder: Path

    @property
    def parts(self) -> list[PluginKind]:
        """The kinds of its plugins."""
        return [KINDS[kind] for kind in PACKAGES[self.kind]]

    @property
    def distribution(self) -> str:
        """Name of the distribution."""
        return f"unirl-{self.name}"

    @property
    def module(self) -> str:
        """Name of the import package."""
        return self.distribution.replace("-", "_")

    def class_name(self, part: str) -> str:
        """Name of the class of a plugin.

        Args:
            part: Name of its kind.

        Example:
            >>> Package("reward", "line-art", Path("unirl-line-art")).class_name("reward")
            'LineArt'
            >>> Package("world", "stripes", Path("unirl-stripes")).class_name("judge")
            'StripesJudge'
        """
        joined = "".join(word[:1].upper() + word[1:] for word in re.split("[-_]", self.name))
        joined += part.capitalize() if len(self.parts) > 1 else ""
        return f"My{joined}" if is_used(self.kind, joined) else joined

    def values(self) -> dict[str, str]:
        """The values that fill in the templates of the whole package."""
        names = [part.name for part in self.parts]
        files = " and ".join(f"`src/{self.module}/{name}.py`" for name in names)
        tests = " and ".join(f"`tests/test_{name}.py`" for name in names)
        runs = "are the implementation" if len(names) > 1 else "is the implementation"
        return {
            "name": self.name,
            "distribution": self.distribution,
            "package": self.module,
            "version": __version__,
            "summary": f"The {' and the '.join(names)} `{self.name}` for lightning-unirl.",
            "description": f"The {' and the '.join(names)} {self.name} for lightning-unirl.",
            "hooks": "\n\n\n".join(self._hook(part) for part in self.parts),
            "use": "\n".join(part.config(self.name) for part in self.parts),
            "files": f"{files} {runs}",
            "tests": f"{tests} {'run' if len(names) > 1 else 'runs'} the checks of `unirl.testing`",
            "show": "\n".join(f"    unirl plugins show {name} {self.name}" for name in names),
        }

    def _hook(self, part: PluginKind) -> str:
        path = f"{self.module}.{part.name}:{self.class_name(part.name)}"
        return f'@hookimpl\ndef {part.hook}(register: Register) -> None:\n    register("{self.name}", "{path}")'


def main(argv: list[str]) -> None:
    """Write a package, and print its files and the next commands.

    Args:
        argv: Arguments after `unirl new`.

    Raises:
        UserError: the kind, the name or the folder cannot be used.
    """
    options = _parse(argv)
    if options.kind not in PACKAGES:
        raise UserError(f"new: no plugin kind {options.kind!r}; {suggest(options.kind, PACKAGES)}")
    package = Package(options.kind, options.name, Path(options.into) / f"unirl-{options.name}")
    _check_name(package)
    try:
        files = _write(package)
    except OSError as error:
        raise UserError(
            f"new: cannot write {str(package.folder)!r} ({error.strerror or error}); choose another folder with --into"
        ) from error
    print(_report(package, files))


def _parse(argv: list[str]) -> argparse.Namespace:
    examples = [f"  {kind.name:<10}{kind.example}" for kind in KINDS.values()]
    examples.append(f"  {'world':<10}prompts and a judge in one package")
    parser = CommandParser(
        prog="unirl new",
        usage="unirl new KIND NAME [--into FOLDER]",
        description="Write an installable plugin package: a working implementation, its tests, the config of a run.",
        epilog="\n".join(["implementation of each kind:", *examples, "", "example: unirl new reward brightness"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("kind", metavar="KIND", help=", ".join(PACKAGES))
    parser.add_argument("name", metavar="NAME", help="name in configs; the package is called unirl-NAME")
    parser.add_argument("--into", metavar="FOLDER", default=".", help="where to write unirl-NAME (default: here)")
    parser.add_argument("-h", "--help", action="help", help="show this help and exit")
    return parser.parse_args(argv)


def _check_name(package: Package) -> None:
    name = package.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*", name):
        raise UserError(
            f"new: NAME {name!r} is not valid; use a letter, then letters and digits, with - or _ between words"
        )
    if keyword.iskeyword(name) or yaml.safe_load(name) != name:
        raise UserError(f"new: NAME {name!r} has another meaning in Python or in YAML; choose another")
    for kind in PACKAGES[package.kind]:
        if name in (registered := host().registry[kind]):
            owner = registered[name]
            raise UserError(f"new: the {kind} {name!r} is already registered by {owner}; choose another name")
    # The name without the prefix is checked, too: an author may rename the package.
    for module in (package.module, name.replace("-", "_")):
        if (origin := _module_origin(module)) is not None:
            raise UserError(f"new: NAME {name!r} would shadow the module {module!r} ({origin}); choose another")


def _module_origin(module: str) -> str | None:
    """The file of an importable module; None if there is none, or only a folder of this name."""
    spec = importlib.util.find_spec(module)
    return None if spec is None else spec.origin


def _write(package: Package) -> list[str]:
    """Write all files, and return their paths in the folder."""
    folder = package.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"new: {str(folder)!r} already exists; nothing is overwritten, choose another NAME or --into, or remove it"
        )
    files = render(package)
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return list(files)


def _report(package: Package, files: list[str]) -> str:
    notes: dict[str, str] = {}
    for part in package.parts:
        values = {"package": package.module, "kind": part.name, "name": package.name}
        notes |= {path.format(**values): note.format(**values) for path, note in NOTES.items()}
    width = max(map(len, files)) + 2
    lines = [f"  {path:<{width}}{notes.get(path, '')}".rstrip() for path in files]
    install = f'cd {shlex.quote(str(package.folder))} && pip install -e ".[test]"'
    steps = [f"  {step}" for step in (install, "pytest", "unirl fit --config example.yaml")]
    return "\n".join([f"wrote {package.folder}", *lines, "", "next:", *steps])


# --- templates ---


def render(package: Package) -> dict[str, str]:
    """The files of a package by path; sources and tests first.

    Args:
        package: The package. Files of its own kind replace those of its parts.
    """
    files, values = {}, package.values()
    for kind in dict.fromkeys((*PACKAGES[package.kind], package.kind, "common")):
        names = {f"{part}_class": package.class_name(part) for part in PACKAGES[package.kind]}
        names["class_name"] = names.get(f"{kind}_class", "")
        for path, text in _templates(kind):
            files[path.replace("src/package", f"src/{package.module}")] = Template(text).substitute(values | names)
    return dict(sorted(files.items(), key=lambda item: (not item[0].startswith(("src/", "tests/")), item[0])))


def is_used(kind: str, word: str) -> bool:
    """Whether the templates of a kind contain a word, which a class of that name would shadow.

    Args:
        kind: One of `PACKAGES`.
        word: The word.

    Example:
        >>> is_used("reward", "Tensor"), is_used("reward", "Brightness")
        (True, False)
    """
    sources = [text for name in (*PACKAGES[kind], kind) for path, text in _templates(name) if path.endswith(".py")]
    return any(re.search(rf"\b{word}\b", text) for text in sources)


def _templates(name: str) -> Iterator[tuple[str, str]]:
    folder = Path(__file__).parent / "templates" / name
    for file in folder.rglob(f"*{SUFFIX}"):
        yield file.relative_to(folder).as_posix().removesuffix(SUFFIX), file.read_text(encoding="utf-8")
