"""Plugin options: which plugins are loaded, by the `unirl` command line and, for child processes, the environment."""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from unirl.errors import UserError, suggest

VARIABLE = "UNIRL_PLUGIN_OPTIONS"
"""Environment variable with plugin options. The command sets it, so that child processes load the same plugins."""
FLAGS = {"--no-autoload": "autoload", "--strict-plugins": "strict", "--trace-hooks": "trace"}
"""Options without a value, and the attribute of `PluginOptions` that each one sets."""
VALUE_OPTIONS = ("-p", "--plugin", "--only-plugins")
HELP = """\
plugin options, anywhere on the command line or in UNIRL_PLUGIN_OPTIONS:
  -p NAME, -p no:NAME       load a plugin regardless of the options below; block a plugin
  --plugin FILE.py          load a plugin from a file
  --only-plugins A,B        load only these plugins; built-in ones are always loaded
  --no-autoload             load only plugins named by -p and --plugin
  --strict-plugins          stop if any installed plugin is broken, even if it is not used
  --trace-hooks             print hook calls and what each plugin returns to stderr"""


@dataclass(frozen=True)
class PluginOptions:
    """Which plugins are loaded. Names are those of entry points or of distributions.

    Args:
        load: Plugins to load regardless of `autoload` and `only`.
        block: Plugins not to load.
        files: Single-file plugins, as absolute paths.
        only: Load only these. None loads all.
        autoload: Load installed plugins.
        strict: Stop if any plugin is broken.
        trace: Print every hook call.

    Example:
        >>> parse(["fit", "-p", "no:shapes", "--strict-plugins"])[0].to_text()
        '-p no:shapes --strict-plugins'
    """

    load: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    autoload: bool = True
    strict: bool = False
    trace: bool = False

    def to_text(self) -> str:
        """The same options as command-line text, for the environment."""
        words = [word for name in self.load for word in ("-p", name)]
        words += [word for name in self.block for word in ("-p", f"no:{name}")]
        words += [word for path in self.files for word in ("--plugin", path)]
        words += ["--only-plugins", ",".join(self.only)] if self.only is not None else []
        words += [flag for flag, name in FLAGS.items() if getattr(self, name) != getattr(PluginOptions(), name)]
        return shlex.join(words)

    def block_reason(self, *names: str, is_file: bool = False) -> str:
        """The option that blocks a plugin, or an empty string.

        Args:
            names: Its names: entry point and distribution.
            is_file: Whether it was given by path.
        """
        if name := _first_match(self.block, names):
            return f"-p no:{name}"
        if is_file or _first_match(self.load, names):
            return ""
        if not self.autoload:
            return "--no-autoload"
        if self.only is not None and not _first_match(self.only, names):
            return f"not in --only-plugins {','.join(self.only)}"
        return ""

    def requests(self, *names: str) -> bool:
        """Whether `-p` names this plugin."""
        return bool(_first_match(self.load, names))

    def check(self, known: Iterable[str], builtin: Iterable[str]) -> None:
        """Validate all names.

        Args:
            known: All entry points and distributions, built-in ones included.
            builtin: Those that are always loaded.

        Raises:
            UserError: a name is unknown, or a built-in plugin is blocked.
        """
        known, builtin = list(known), list(builtin)
        names = [("-p ", name) for name in self.load] + [("-p no:", name) for name in self.block]
        for option, name in [*names, *(("--only-plugins ", name) for name in self.only or ())]:
            if not _first_match([name], known):
                hint = f"{suggest(name, set(known))}" if known else "none is installed"
                raise UserError(f"{option}{name}: no plugin or distribution has this name; {hint}")
        if name := _first_match(self.block, builtin):
            raise UserError(f"-p no:{name}: built-in plugins cannot be blocked; remove this option")


def parse(argv: Sequence[str], defaults: PluginOptions | None = None) -> tuple[PluginOptions, list[str]]:
    """Split a command line into plugin options and other arguments. Later options override earlier ones.

    Args:
        argv: Arguments.
        defaults: Options already given, such as those of the environment.

    Raises:
        UserError: the value of an option is missing.
    """
    options, rest, words = defaults or PluginOptions(), [], iter(argv)
    for word in words:
        option, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif word in FLAGS:
            change: dict[str, Any] = {FLAGS[word]: word != "--no-autoload"}
            options = replace(options, **change)
        elif option in VALUE_OPTIONS:
            options = _with_value(options, option, value if equals else next(words, None))
        else:
            rest.append(word)
    return options, rest


def from_environment(defaults: PluginOptions | None = None) -> PluginOptions:
    """The plugin options in the environment variable `UNIRL_PLUGIN_OPTIONS`.

    Args:
        defaults: Options that they override, such as those of configs.

    Raises:
        UserError: it contains anything else.
    """
    try:
        return parse_only(shlex.split(os.environ.get(VARIABLE, "")), defaults)
    except (UserError, ValueError) as error:
        raise UserError(f"{VARIABLE}: {error}") from error


def parse_only(words: Sequence[str], defaults: PluginOptions | None = None) -> PluginOptions:
    """Parse words that must all be plugin options.

    Args:
        words: As on a command line.
        defaults: Options that they override.

    Raises:
        UserError: the value of an option is missing, or a word is no plugin option.
    """
    options, rest = parse(words, defaults)
    if rest:
        allowed = ", ".join([*VALUE_OPTIONS, *FLAGS])
        raise UserError(f"{rest[0]!r} is not a plugin option; use {allowed}")
    return options


def _with_value(options: PluginOptions, option: str, value: str | None) -> PluginOptions:
    if value is None or value.startswith("-") or (not value and option != "--only-plugins"):
        raise UserError(f"{option}: expected {'a file' if option == '--plugin' else 'the name of a plugin'} after it")
    if option == "--plugin":
        path = str(Path(value).resolve())
        return replace(options, files=(*_without(options.files, path), path))
    if option == "--only-plugins":
        return replace(options, only=tuple(dict.fromkeys(name for name in value.split(",") if name)))
    name = value.removeprefix("no:")
    load, block = _without(options.load, name), _without(options.block, name)
    if name == value:
        load = (*load, name)
    else:
        block = (*block, name)
    return replace(options, load=load, block=block)


def _without(names: Iterable[str], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)


def _first_match(names: Iterable[str], plugin_names: Iterable[str]) -> str:
    # The names of a distribution and its entry point often differ only in "-" and "_".
    canonical = {canonicalize_name(name) for name in plugin_names}
    return next((name for name in names if canonicalize_name(name) in canonical), "")
