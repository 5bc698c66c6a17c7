"""The option `requires_plugins`: distributions that a config needs, checked before anything heavy is imported."""

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
from unirl.hooks import PROJECT
from unirl.hooks.host import host

KEY = "requires_plugins"


def resolve_requirements(argv: Sequence[str]) -> list[str]:
    """Check the requirements of all configs of a command line, and append them to it as one list.

    Args:
        argv: Arguments after the subcommand. Its configs are read, but nothing that they name is imported.

    Raises:
        UserError: a required distribution is missing, has the wrong version, or its plugins did not load.
    """
    required = list(_requirements(argv))
    for source, text in required:
        _check_installed(source, text)
    plugins = host().plugins
    for source, text in required:
        name = canonicalize_name(Requirement(text).name)
        found = [plugin for plugin in plugins if canonicalize_name(plugin.distribution) == name]
        if not any(plugin.status == "loaded" for plugin in found) and _applies(text):
            reason = "; ".join(map(str, found)) or f"{name} is installed, but has no plugins for unirl"
            raise UserError(f"{source}: {text!r} is required; {reason}")
    union = list(dict.fromkeys(text for _, text in required))
    # Otherwise the last config's list would replace the others, and the saved config would lack them.
    return [*argv, *([f"--{KEY}={json.dumps(union)}"] if union else [])]


def _check_installed(source: str, text: str) -> None:
    requirement = Requirement(text)
    if not _applies(text):
        return
    name, command = requirement.name, f"pip install --upgrade {shlex.quote(text)}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError as error:
        raise UserError(f"{source}: {text!r} is required, but not installed{_plugin_hint(name)}; {command}") from error
    if not version or not requirement.specifier.contains(version, prereleases=True):
        raise UserError(f"{source}: {text!r} is required, but {name} {version or '?'} is installed; {command}")


def _plugin_hint(name: str) -> str:
    distributions = {
        entry.name: entry.dist.name for entry in metadata.entry_points(group=PROJECT) if entry.dist and entry.dist.name
    }
    return f" (the plugin {name!r} is in the distribution {distributions[name]!r})" if name in distributions else ""


def _applies(text: str) -> bool:
    marker = Requirement(text).marker
    return marker is None or marker.evaluate()


def _requirements(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each requirement with the config or option that it is from."""
    words = list(argv)
    for word, following in zip(words, [*words, ""][1:], strict=True):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if option in ("--config", "-c"):
            yield from _validated(value, _read_config(value))
        elif option.removesuffix("+") == f"--{KEY}":
            yield from _validated(f"--{KEY}", _parse_yaml(value))


def _read_config(path: str) -> Any:
    # A missing or malformed config is reported by the parser, with the line.
    try:
        config = _parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    if not isinstance(config, dict):
        return None
    return config.get(KEY, config.get(f"{KEY}+"))


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # an invalid date, 5,000 digits, 3,000 brackets
        return None


def _validated(source: str, value: Any) -> Iterator[tuple[str, str]]:
    texts = value if isinstance(value, list) else [] if value is None else [value]
    for text in texts:
        try:
            Requirement(text)
        except (InvalidRequirement, TypeError) as error:
            raise UserError(
                f"{source}: {KEY}: {text!r} is not a requirement; write it like [unirl-shapes>=0.2, another]"
            ) from error
        yield source, text
