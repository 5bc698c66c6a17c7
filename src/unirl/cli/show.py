"""`unirl plugins show NAME`: documentation, options and a config snippet of a registered name. Imports no class."""

import argparse
import ast
import json
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from unirl.cli.messages import CommandParser
from unirl.errors import UserError, suggest
from unirl.hooks.host import host
from unirl.hooks.inspect import ClassSource, Parameter, problem, read
from unirl.hooks.kinds import KINDS
from unirl.hooks.registry import Registered

MAX_WIDTH, MAX_INDENT = 110, 24
REQUIRED = "REQUIRED"
"""Placeholder for a required value in a snippet. It is no number and no existing path, so that forgetting it fails."""


def main(argv: list[str]) -> None:
    """Print what is registered under a name.

    Args:
        argv: Arguments after `unirl plugins show`.

    Raises:
        UserError: the name is not registered, or is registered by several kinds.

    Example:
        >>> main(["reward", "keyword"])  # doctest: +ELLIPSIS
        reward keyword
        ...
    """
    options = _parse(argv)
    kind, item = _find(options.kind, options.name)
    reason, source = _read(kind, item)
    if options.json:
        print(json.dumps(_as_json(kind, item, reason, source), indent=2))
    else:
        print(_as_text(kind, item, reason, source))


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="unirl plugins show",
        usage="unirl plugins show [KIND] NAME [--json]",
        description="Documentation, options and a config snippet of a name that `unirl plugins` lists.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="+", metavar="[KIND] NAME", help="a registered name, if needed after its kind")
    parser.add_argument("--kind", help=f"kind of the plugin: {', '.join(KINDS)}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    *before, options.name = options.names
    if len(before) > 1 or (before and options.kind):
        parser.error(f"expected [KIND] NAME, got {' '.join(argv)!r}")
    options.kind = before[0] if before else options.kind
    if options.kind not in (None, *KINDS):
        parser.error(f"no plugin kind {options.kind!r}; kinds are {', '.join(KINDS)}")
    return options


def _find(kind: str | None, name: str) -> tuple[str, Registered]:
    registry = host().registry
    kinds = [kind] if kind else list(KINDS)
    found = [(one, registry[one][name]) for one in kinds if name in registry[one]]
    if len(found) > 1:
        commands = " or ".join(f"`unirl plugins show {one} {name}`" for one, _ in found)
        raise UserError(f"{name!r} is registered as {' and '.join(one for one, _ in found)}; use {commands}")
    if found:
        return found[0]
    names = {known for one in kinds for known in registry[one]}
    hint = f"{suggest(name, names)}" if names else f"no {kind} plugin is installed"
    failed = "; some plugins did not load, see `unirl plugins`" if host().failures else ""
    raise UserError(f"no {kind or 'plugin'} is registered as {name!r}; {hint}{failed}")


def _read(kind: str, item: Registered) -> tuple[str | None, ClassSource | None]:
    try:
        return problem(kind, item.path), read(item.path)
    except UserError as error:
        return str(error), None


def _as_json(kind: str, item: Registered, reason: str | None, source: ClassSource | None) -> dict[str, Any]:
    parameters = source.parameters if source else ()
    return {
        "kind": kind,
        "name": item.name,
        "class": source.path if source else item.path,
        "distribution": item.distribution,
        "version": item.version,
        "problem": reason,
        "documentation": source.summary if source else "",
        "bases": list(source.bases) if source else [],
        "parameters": [asdict(one) | {"required": one.required} for one in parameters],
        "config": snippet(kind, item.name, parameters),
    }


def _as_text(kind: str, item: Registered, reason: str | None, source: ClassSource | None) -> str:
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    head = [f"{kind} {item.name}", f"  class    {source.path if source else item.path}"]
    head.append(f"  package  {item.distribution} {item.version}")
    if reason:
        head.append(f"  problem  {reason}")
    parts = ["\n".join(head)]
    if source:
        parts.append(_wrap(source.summary, width) or "(no documentation)")
        parts.append(
            "\n".join(["Options", *option_table(source.parameters, width)]) if source.parameters else "No options."
        )
    has_required = any(one.required for one in source.parameters) if source else False
    title = f"Config (replace {REQUIRED})" if has_required else "Config"
    parts.append(f"{title}\n\n{snippet(kind, item.name, source.parameters if source else ())}")
    return "\n\n".join(parts)


def _wrap(text: str, width: int) -> str:
    """Wrap paragraphs; lists, code and other indented text stay unchanged."""
    return "\n\n".join(
        paragraph
        if any(line.startswith((" ", "-", ">", "|")) for line in paragraph.splitlines())
        else textwrap.fill(" ".join(paragraph.split()), width)
        for paragraph in text.split("\n\n")
    )


def option_table(parameters: Sequence[Parameter], width: int, prefix: str = "") -> list[str]:
    """Lines with name, default and type of each option, and its description below.

    Args:
        parameters: The options, at least one.
        width: Characters of a line.
        prefix: Put before each name.

    Example:
        >>> option_table([Parameter("weight", "float", "1.0", description="In the sum.")], 60)
        ['  weight  1.0  float', '          In the sum.']
    """
    dotted = [*_with_inner(parameters, prefix)]
    rows = [(name, "required" if one.default is None else format_default(one.default)) for name, one in dotted]
    name_width, default_width = (max(len(row[i]) for row in rows) for i in range(2))
    lines: list[str] = []
    for (_, one), (name, default) in zip(dotted, rows, strict=True):
        lines.append(f"  {name:<{name_width}}  {default:<{default_width}}  {one.annotation or ''}".rstrip())
        indent = " " * min(name_width + 4, MAX_INDENT)
        lines += textwrap.wrap(one.description, width, initial_indent=indent, subsequent_indent=indent)
    return lines


def _with_inner(parameters: Sequence[Parameter], prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    """All options by their dotted name, those inside others too."""
    for one in parameters:
        yield f"{prefix}{one.name}", one
        yield from _with_inner(one.options, f"{prefix}{one.name}.")


# --- config snippets ---


def snippet(kind: str, name: str, parameters: Sequence[Parameter]) -> str:
    """A config that uses a plugin with all options at their defaults, as YAML.

    Args:
        kind: Name of the plugin kind.
        name: A registered name, or a class path.
        parameters: The options of the plugin. Defaults that are not plain values become comments.

    Example:
        >>> print(snippet("reward", "short", [Parameter("weight", "float", "1.0"), Parameter("words", "int", None)]))
        model:
          rewards:
            - class_path: short
              init_args:
                weight: 1.0
                words: REQUIRED  # int
    """
    section, key = KINDS[kind].config_key.split(".")
    dash, indent = ("    - ", 6) if KINDS[kind].is_list else ("    ", 4)
    lines = [f"{section}:", f"  {key}:", f"{dash}class_path: {_to_yaml(name)}"]
    options = [line for one in parameters for line in _option(one)]
    only_comments = all(option.startswith("#") for option in options)
    if options:
        lines.append(f"{' ' * indent}{'# ' if only_comments else ''}init_args:")
    lines += [f"{' ' * (indent + 2)}{option}" for option in options]
    return "\n".join(lines)


def format_default(default: str) -> str:
    """A default value as YAML; as Python source if it is not a plain value.

    Args:
        default: Python source.

    Example:
        >>> format_default("None"), format_default("(0.9, 0.999)"), format_default("ImageSampling()")
        ('null', '[0.9, 0.999]', 'ImageSampling()')
    """
    try:
        return _to_yaml(ast.literal_eval(default))
    except (ValueError, SyntaxError, yaml.YAMLError):
        return default


def _option(parameter: Parameter) -> list[str]:
    name, default = parameter.name, parameter.default
    inner = [line for one in parameter.options for line in _option(one)]
    if not all(line.startswith("#") for line in inner):
        return [f"{name}:", *(f"  {line}" for line in inner)]
    if default is None:
        return [f"{name}: {REQUIRED}" + (f"  # {parameter.annotation}" if parameter.annotation else "")]
    try:
        return [f"{name}: {_to_yaml(ast.literal_eval(default))}"]
    except (ValueError, SyntaxError, yaml.YAMLError):
        return [f"# {name}: default is {default}"]


def _to_yaml(value: object) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False).removesuffix("...\n").strip()
