"""`requires_plugins` of configs, checked before anything loads."""

import json
import shlex
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from unirl.errors import UserError
from unirl.hooks.host import host

KEY = "requires_plugins"


def resolve_requirements(argv: Sequence[str]) -> list[str]:
    """The arguments of a run, with the requirements of all its configs as one list.

    Args:
        argv: Arguments after the subcommand; configs are read here already, but nothing that they name is.

    Raises:
        UserError: a required distribution is missing, too old or too new, or its plugins did not load.
    """
    asked = list(_asked(argv))
    for where, text in asked:
        _check_installed(where, text)
    loaded = host()  # what is broken beyond use is told before anything heavy is imported
    for where, text in asked:
        name = canonicalize_name(Requirement(text).name)
        found = [plugin for plugin in loaded.plugins if canonicalize_name(plugin.distribution) == name]
        if not any(plugin.status == "loaded" for plugin in found) and _applies(text):
            said = "; ".join(map(str, found)) or f"{name} is installed, but offers unirl no plugin"
            raise UserError(f"{where}: {text!r} is required; {said}")
    union = list(dict.fromkeys(text for _, text in asked))
    # The last list would overrule the others, and the saved config lack them.
    return [*argv, *([f"--{KEY}={json.dumps(union)}"] if union else [])]


def _check_installed(where: str, text: str) -> None:
    required = Requirement(text)
    if not _applies(text):
        return
    advice = f"pip install --upgrade {shlex.quote(text)}"
    try:
        version = metadata.version(required.name)
    except metadata.PackageNotFoundError as error:
        raise UserError(f"{where}: {text!r} is required, but not installed{_meant(required.name)}; {advice}") from error
    if not required.specifier.contains(version, prereleases=True):
        raise UserError(f"{where}: {text!r} is required, but {required.name} {version} is installed; {advice}")


def _meant(name: str) -> str:
    of = {entry.name: entry.dist.name for entry in metadata.entry_points(group="unirl") if entry.dist}
    return f" (the plugin {name!r} is in the distribution {of[name]!r})" if name in of else ""


def _applies(text: str) -> bool:
    marker = Requirement(text).marker
    return marker is None or marker.evaluate()


def _asked(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = list(argv)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if option in ("--config", "-c"):
            yield from _texts(value, _configured(value))
        elif option.removesuffix("+") == f"--{KEY}":
            yield from _texts(f"--{KEY}", _parsed(value))


def _configured(path: str) -> Any:
    # A config that is missing or malformed is for the parser to refuse; it knows the line.
    try:
        config = _parsed(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    if not isinstance(config, dict):
        return None
    return config.get(KEY, config.get(f"{KEY}+"))


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # a bad date, a number of 5,000 digits, 3,000 brackets
        return None


def _texts(where: str, value: Any) -> Iterator[tuple[str, str]]:
    texts = value if isinstance(value, list) else [] if value is None else [value]
    for text in texts:
        try:
            Requirement(text)
        except (InvalidRequirement, TypeError) as error:
            raise UserError(f"{where}: {KEY}: {text!r} is not like [unirl-shapes>=0.2, another]") from error
        yield where, text
