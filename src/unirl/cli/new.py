"""`unirl new`: an installable plugin package, ready to be changed."""

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
from unirl.errors import UserError, nearest
from unirl.hooks.host import KINDS, host

NOTES = {
    "src/{package}/{kind}.py": "yours to change: start here",
    "src/{package}/network.py": "the network behind it",
    "src/{package}/words.py": "its vocabulary",
    "src/{package}/plugin.py": "registers the name {name!r}",
    "tests/test_{kind}.py": "what every {kind} plugin must do, and a test of its own",
    "example.yaml": "a short run that uses it",
    ".github/workflows/ci.yml": "installs it and runs its tests",
    "LICENSE": "Apache-2.0, unless you choose another",
}
"""What a user should know of some files."""


@dataclass(frozen=True)
class Plan:
    """What is written, and where.

    Args:
        kind: One of the plugin kinds.
        name: What configs will say.
        folder: Of the package, not there yet or empty.
    """

    kind: str
    name: str
    folder: Path

    @property
    def distribution(self) -> str:
        """What pip calls it."""
        return f"unirl-{self.name}"

    @property
    def package(self) -> str:
        """What Python calls it."""
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        """The class behind the name.

        Example:
            >>> Plan("reward", "line-art", Path("unirl-line-art")).class_name
            'LineArt'
        """
        joined = "".join(part[:1].upper() + part[1:] for part in re.split("[-_]", self.name))
        return f"My{joined}" if taken(self.kind, joined) else joined

    def values(self) -> dict[str, str]:
        """What the templates are filled with."""
        known = {"kind": self.kind, "name": self.name, "distribution": self.distribution, "package": self.package}
        known |= {"class_name": self.class_name, "hook": KINDS[self.kind], "version": __version__}
        known |= {"summary": SUMMARIES[self.kind], "use": USES[self.kind].format(name=self.name)}
        return known


def main(argv: list[str]) -> None:
    """Write a package; say what was written and what to type next.

    Args:
        argv: Arguments after `unirl new`.

    Raises:
        UserError: the kind, the name or the folder will not do.
    """
    options = _options(argv)
    if options.kind not in KINDS:
        raise UserError(f"new: no kind {options.kind!r}; nearest: {nearest(options.kind, KINDS)}")
    plan = Plan(options.kind, options.name, Path(options.into) / f"unirl-{options.name}")
    _check_name(plan)
    try:
        files = _write(plan)
    except OSError as error:
        raise UserError(
            f"new: cannot write {str(plan.folder)!r} ({error.strerror or error}); choose another place with --into"
        ) from error
    print(_told(plan, files))


def _options(argv: list[str]) -> argparse.Namespace:
    kinds = [f"  {kind:<10}{summary}" for kind, summary in SUMMARIES.items()]
    parser = CommandParser(
        prog="unirl new",
        usage="unirl new KIND NAME [--into FOLDER]",
        description="Write an installable plugin package: a working implementation, its tests, an example run.",
        epilog="\n".join(["what each kind starts from:", *kinds, "", "example: unirl new reward brightness"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("name", metavar="NAME", help="what configs will call it; the package is called unirl-NAME")
    parser.add_argument("--into", metavar="FOLDER", default=".", help="where unirl-NAME is written (default: here)")
    parser.add_argument("-h", "--help", action="help", help="show this and stop")
    return parser.parse_args(argv)


def _check_name(plan: Plan) -> None:
    name = plan.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*", name):
        raise UserError(
            f"new: NAME {name!r} will not do; begin with a letter, then letters and digits, with - or _ between words"
        )
    if keyword.iskeyword(name) or yaml.safe_load(name) != name:
        raise UserError(f"new: NAME {name!r} means something else in Python or in YAML; choose another")
    # An author who moves the module to the top, or drops the prefix, must not hide torch.
    if name in (registered := host().registry[plan.kind]):
        raise UserError(f"new: the {plan.kind} {name!r} is registered already, by {registered[name]}; choose another")
    for module in (plan.package, name.replace("-", "_")):
        if (hidden := _origin(module)) is not None:
            raise UserError(f"new: NAME {name!r} would hide the module {module!r} ({hidden}); choose another")


def _origin(module: str) -> str | None:
    """Where an importable module comes from; None where there is none, or only a folder of that name."""
    spec = importlib.util.find_spec(module)
    return None if spec is None else spec.origin


def _write(plan: Plan) -> list[str]:
    """Write everything; gives the paths below the folder."""
    if plan.folder.exists() and (not plan.folder.is_dir() or any(plan.folder.iterdir())):
        raise UserError(
            f"new: {str(plan.folder)!r} exists already and nothing is overwritten; "
            "choose another NAME or --into, or remove it"
        )
    files = render(plan.kind, plan.values())
    for path, text in files.items():
        target = plan.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return list(files)


def _told(plan: Plan, files: list[str]) -> str:
    values = {"package": plan.package, "kind": plan.kind, "name": plan.name}
    notes = {path.format(**values): note.format(**values) for path, note in NOTES.items()}
    width = max(map(len, files)) + 2
    lines = [f"  {path:<{width}}{notes.get(path, '')}".rstrip() for path in files]
    install = f'cd {shlex.quote(str(plan.folder))} && pip install -e ".[test]"'
    steps = [f"  {step}" for step in (install, "pytest", "unirl fit --config example.yaml")]
    return "\n".join([f"wrote {plan.folder}", *lines, "", "next:", *steps])


SUFFIX = ".template"
SUMMARIES = {
    "backbone": "a small unified transformer in plain torch, trainable from scratch",
    "reward": "the mean brightness of a drawing",
    "update": "REINFORCE with the mean of the group as baseline",
    "prompts": "things of one color, a fifth of them held out",
    "judge": "tells whether the colors that were asked for are in the picture",
}
"""What the implementation of each kind does at first."""
USES = {
    "backbone": "model:\n  backbone: {name}",
    "reward": "model:\n  rewards:\n    - class_path: {name}\n      init_args: {{weight: 0.5}}",
    "update": "model:\n  update: {name}",
    "prompts": "data:\n  prompts: {name}",
    "judge": "model:\n  judge: {name}",
}
"""How a config names one."""


def render(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    """The files of a package by path, in the order a reader wants them.

    Args:
        kind: A plugin kind.
        values: What the templates are filled with; those of `kind` and `package` name files, too.

    Raises:
        KeyError: a template asks for a value that is missing.
    """
    package = f"src/{values['package']}"
    filled = {
        path.replace("src/package", package): Template(text).substitute(values) for path, text in _templates(kind)
    }
    return dict(sorted(filled.items(), key=lambda item: (not item[0].startswith(("src/", "tests/")), item[0])))


def taken(kind: str, word: str) -> bool:
    """Whether the templates of a kind use a word themselves, so that a class of that name would hide something.

    Example:
        >>> taken("reward", "Tensor"), taken("reward", "Brightness")
        (True, False)
    """
    return any(re.search(rf"\b{word}\b", text) for path, text in _templates(kind) if path.endswith(".py"))


def _templates(kind: str) -> Iterator[tuple[str, str]]:
    for folder in (Path(__file__).parent / "templates" / name for name in (kind, "common")):
        for file in folder.rglob(f"*{SUFFIX}"):
            yield file.relative_to(folder).as_posix().removesuffix(SUFFIX), file.read_text(encoding="utf-8")
