"""Which plugins load: the switches of the `unirl` command line, and of the environment for child processes."""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from unirl.errors import UserError, nearest

VARIABLE = "UNIRL_PLUGIN_OPTIONS"
"""The environment variable that holds switches as text; the command sets it, so that child processes load the same."""
FLAGS = {"--no-autoload": "autoload", "--strict-plugins": "strict", "--trace-hooks": "trace"}
VALUED = ("-p", "--plugin", "--only-plugins")
HELP = """\
plugins, anywhere on the line (or in UNIRL_PLUGIN_OPTIONS):
  -p NAME, -p no:NAME       load a plugin whatever else is said; block it
  --plugin FILE.py          load a plugin from one file
  --only-plugins A,B        load no others; built-ins always load
  --no-autoload             load none but those that -p and --plugin name
  --strict-plugins          stop if any plugin is broken, even one that is not used
  --trace-hooks             say on stderr which hook is called, and what each plugin returns"""


@dataclass(frozen=True)
class Switches:
    """What the user said about plugins; names are entry points or distributions.

    Args:
        load: Load these, whatever `autoload` and `only` say.
        block: Load none of these.
        files: Single-file plugins, absolute paths.
        only: Load no others; None allows all.
        autoload: Load what is installed.
        strict: A broken plugin stops everything.
        trace: Print every hook call.

    Example:
        >>> parse(["fit", "-p", "no:shapes", "--strict-plugins"])[0].text()
        '-p no:shapes --strict-plugins'
    """

    load: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    autoload: bool = True
    strict: bool = False
    trace: bool = False

    def text(self) -> str:
        """The same switches as a command line, for the environment."""
        words = [word for name in self.load for word in ("-p", name)]
        words += [word for name in self.block for word in ("-p", f"no:{name}")]
        words += [word for path in self.files for word in ("--plugin", path)]
        words += ["--only-plugins", ",".join(self.only)] if self.only is not None else []
        words += [flag for flag, name in FLAGS.items() if getattr(self, name) != getattr(Switches(), name)]
        return shlex.join(words)

    def blocks(self, *names: str, asked: bool = False) -> str:
        """The switch that keeps a plugin from loading, or nothing.

        Args:
            names: What the plugin goes by: its entry point and its distribution.
            asked: Whether it was given by path.
        """
        if said := _among(names, self.block):
            return f"-p no:{said}"
        if asked or _among(names, self.load):
            return ""
        if not self.autoload:
            return "--no-autoload"
        if self.only is not None and not _among(names, self.only):
            return f"not in --only-plugins {','.join(self.only)}"
        return ""

    def asks_for(self, *names: str) -> bool:
        """Whether `-p` names this plugin."""
        return bool(_among(names, self.load))

    def check(self, installed: Iterable[str], builtin: Iterable[str]) -> None:
        """Refuse names that nothing goes by.

        Args:
            installed: All entry points and distributions, built-ins included.
            builtin: Those that always load.

        Raises:
            UserError: a name is unknown, or a built-in is blocked.
        """
        installed, builtin = list(installed), list(builtin)
        said = [("-p ", name) for name in self.load] + [("-p no:", name) for name in self.block]
        for switch, name in [*said, *(("--only-plugins ", name) for name in self.only or ())]:
            if not _among([name], installed):
                offer = f"nearest: {nearest(name, set(installed))}" if installed else "none is installed"
                raise UserError(f"{switch}{name}: no plugin or distribution of that name; {offer}")
        if name := _among(self.block, builtin):
            raise UserError(f"-p no:{name}: what unirl ships itself always loads")


def parse(argv: Sequence[str], before: Switches | None = None) -> tuple[Switches, list[str]]:
    """Take the switches out of a command line; what comes later overrules.

    Args:
        argv: Any arguments.
        before: Switches already given, such as those of the environment.

    Raises:
        UserError: a switch lacks its value.
    """
    switches, rest, words = before or Switches(), [], iter(argv)
    for word in words:
        option, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif word in FLAGS:
            changed: dict[str, Any] = {FLAGS[word]: word != "--no-autoload"}
            switches = replace(switches, **changed)
        elif option in VALUED:
            switches = _with(switches, option, value if equals else next(words, None))
        else:
            rest.append(word)
    return switches, rest


def from_environment() -> Switches:
    """The switches in `UNIRL_PLUGIN_OPTIONS`.

    Raises:
        UserError: it holds anything else.
    """
    try:
        switches, rest = parse(shlex.split(os.environ.get(VARIABLE, "")))
    except (UserError, ValueError) as error:
        raise UserError(f"{VARIABLE}: {error}") from error
    if rest:
        raise UserError(f"{VARIABLE}: {rest[0]!r} is no switch; there are {', '.join([*VALUED, *FLAGS])}")
    return switches


def _with(switches: Switches, option: str, value: str | None) -> Switches:
    if value is None or value.startswith("-") or (not value and option != "--only-plugins"):
        raise UserError(f"{option}: expected {'a file' if option == '--plugin' else 'the name of a plugin'} after it")
    if option == "--plugin":
        path = str(Path(value).resolve())
        return replace(switches, files=(*_without(switches.files, path), path))
    if option == "--only-plugins":
        return replace(switches, only=tuple(dict.fromkeys(name for name in value.split(",") if name)))
    name = value.removeprefix("no:")
    load, block = _without(switches.load, name), _without(switches.block, name)
    if name == value:
        load = (*load, name)
    else:
        block = (*block, name)
    return replace(switches, load=load, block=block)


def _without(names: Iterable[str], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)


def _among(names: Iterable[str], said: Iterable[str]) -> str:
    # Distributions and entry points are often the same word once with "-" and once with "_".
    known = {canonicalize_name(name) for name in names}
    return next((one for one in said if canonicalize_name(one) in known), "")
