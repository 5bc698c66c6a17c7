"""The option `plugin_options` of a config: plugins to load, known before anything that the config names is imported."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from unirl.errors import UserError
from unirl.hooks.options import PluginOptions, parse_only

KEY = "plugin_options"


def config_options(argv: Sequence[str]) -> PluginOptions:
    """The plugin options that the configs of a command line state. Later ones override earlier ones.

    Args:
        argv: A command line. Its configs are read; files in a config are relative to its folder.

    Raises:
        UserError: the value is not a text with plugin options only.
    """
    options = PluginOptions()
    for source, value, folder in _values(argv):
        if value is not None:
            try:
                options = parse_only(list(_words(value, folder)), options)
            except (UserError, ValueError) as error:
                advice = "write them as on the command line, such as --plugin my_reward.py"
                raise UserError(f"{source}: {KEY} {value!r}: {error}; {advice}") from error
    return options


def option_values(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word of a command line as an option, with the value that follows it, if it is one.

    Example:
        >>> list(option_values(["--config", "a.yaml", "--seed=1"]))
        [('--config', 'a.yaml'), ('a.yaml', '--seed=1'), ('--seed', '1')]
    """
    for i, word in enumerate(argv):
        option, equals, value = word.partition("=")
        yield option, value if equals else "".join(argv[i + 1 : i + 2])


def read_config(path: str) -> dict[str, Any]:
    """The options of a config file; none where the file is missing or malformed, which the parser reports.

    Args:
        path: The file.
    """
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _values(argv: Sequence[str]) -> Iterator[tuple[str, Any, Path]]:
    """Each value with the config or option that it is from, and the folder of its files."""
    for option, value in option_values(argv):
        if option in ("--config", "-c"):
            yield value, read_config(value).get(KEY), Path(value).parent
        elif option == f"--{KEY}":
            yield option, value, Path()


def _words(value: Any, folder: Path) -> Iterator[str]:
    if not isinstance(value, str):
        raise UserError("expected a text")
    words = shlex.split(value)
    for previous, word in zip(["", *words], words, strict=False):
        if previous == "--plugin":
            yield str(folder / word)
        elif word.startswith("--plugin="):
            yield f"--plugin={folder / word.removeprefix('--plugin=')}"
        else:
            yield word
